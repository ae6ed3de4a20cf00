"""Where data sets lie and how the hub is reached: options, then the variables that Molmo and Hugging Face use.

MOLMO_DATA_DIR, HPCDATA_DATA_DIR        the folder of all sets (--data-dir)
HPCDATA_CATALOGUE                       folders of entries of one's own, separated by colons (--catalogue)
HF_ENDPOINT                             another hub, or a mirror
HF_TOKEN, HF_ACCESS_TOKEN, HF_HOME      a token, or the folder where `hf auth login` has left one
HF_HUB_OFFLINE, HF_DATASETS_OFFLINE     1: nothing is asked of any server
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from hpcdata.base.errors import UserError
from hpcdata.net import Refused
from hpcdata.net.addresses import parse, shown

DATA_DIR = ("MOLMO_DATA_DIR", "HPCDATA_DATA_DIR")
FOLDERS = "HPCDATA_CATALOGUE"
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
_HUB = "https://huggingface.co"
_TRUE = ("1", "on", "yes", "true")


@dataclass(frozen=True, kw_only=True)
class Hub:
    """token: never printed, and sent to `endpoint` alone."""

    endpoint: str = _HUB
    token: str | None = field(default=None, repr=False)
    is_offline: bool = False


def find_hub(environ: Mapping[str, str] = os.environ) -> Hub:
    """Raises UserError for an endpoint that is none."""
    endpoint = environ.get("HF_ENDPOINT", "").strip().rstrip("/") or _HUB
    try:
        parse(endpoint)
    except Refused as error:
        raise UserError(f"HF_ENDPOINT is {shown(endpoint)!r}, expected an address such as {_HUB}: {error}") from None
    if "@" in urlsplit(endpoint).netloc:
        raise UserError(f"HF_ENDPOINT has a password, which is not sent to {shown(endpoint)}: export HF_TOKEN for one")
    offline = any(environ.get(name, "").strip().lower() in _TRUE for name in OFFLINE)
    return Hub(endpoint=endpoint, token=_find_token(environ), is_offline=offline)


def find_data_dir(given: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of all sets. Raises UserError when nothing says where it is."""
    found = given or next((environ[name] for name in DATA_DIR if environ.get(name)), None)
    if not found:
        raise UserError(
            f"nothing says where data sets lie: export {DATA_DIR[0]}=/path/to/data, or give --data-dir /path/to/data"
        )
    return Path(os.path.expanduser(os.path.expandvars(found))).absolute()


def find_folders(given: list[str], environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Folders of entries of the user's own; the first one wins."""
    named = [*given, *filter(None, environ.get(FOLDERS, "").split(":"))]
    return [Path(os.path.expanduser(name)).absolute() for name in named]


def _find_token(environ: Mapping[str, str]) -> str | None:
    for name in ("HF_TOKEN", "HF_ACCESS_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := "".join(environ.get(name, "").split()):
            return _checked(token, name)
    home = environ.get("HF_HOME") or os.path.join(environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    path = environ.get("HF_TOKEN_PATH") or os.path.join(home, "token")
    path = os.path.expanduser(os.path.expandvars(path))
    try:
        token = "".join(Path(path).read_text().split())
    except (OSError, UnicodeDecodeError):
        return None
    return _checked(token, path) if token else None


def _checked(token: str, where: str) -> str:
    """Raises UserError for what no request can carry; it is not shown."""
    if not (token.isascii() and token.isprintable()):
        raise UserError(f"the token of {where} has characters that none has: copy it again")
    return token
