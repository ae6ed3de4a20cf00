"""A real browser without a window, for pages that must open without a network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--virtual-time-budget=3000",
)

_OWN = re.compile(r"https?://[a-z0-9.-]+\.(google|googleapis|gvt1)\.com/")


@dataclass(frozen=True, kw_only=True)
class Page:
    """What the browser has made of a file."""

    dom: str
    requests: set[str]
    """Addresses on the network that it asked for, without those that a browser asks for whatever the page."""


def chromium() -> str:
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("needs a browser: apt-get install chromium")
    return found


def open_page(file: Path) -> Page:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "net.json")
        dom = _run(Path(folder), "--dump-dom", f"--log-net-log={log}", file.as_uri())
        events = json.loads(log.read_text())["events"]
    urls = {event.get("params", {}).get("url", "") for event in events}
    return Page(dom=dom, requests={url for url in urls if url and not _OWN.match(url)})


def screenshot(file: Path, image: Path, *, width: int = 1180, height: int = 2600, dark: bool = False) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
        _run(Path(folder), scheme, f"--window-size={width},{height}", f"--screenshot={image}", file.as_uri())


def _run(profile: Path, *arguments: str) -> str:
    command = [chromium(), *_FLAGS, f"--user-data-dir={profile}/profile", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
