"""A small set of data on a hub of this machine, and what is asked of it in tests."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from hpcdata.catalogue.accounts import Account, Options
from hpcdata.catalogue.entry import Entry, HubTree
from hpcdata.catalogue.fetching import fetch_set
from hpcdata.catalogue.record import FOLDER
from hpcdata.catalogue.registry import OWN
from hpcdata.catalogue.settings import Hub as HubSettings
from hpcdata.catalogue.web import Web
from tests.catalogue.hub import Hub

REPO = "lab/pairs"
MIB = 1 << 20
YAML = """\
name: pairs
title: pictures and texts of a test
folder: torch_datasets/pairs
licence: CC0-1.0
groups: [tests]
hub: [{repo: lab/pairs}]
splits: {train: ['data/train-*']}
"""


def fill(root: Path, *, num_small: int = 6, big: int = 3 * MIB) -> dict[str, bytes]:
    """`root/lab/pairs`: path -> bytes. Names as hubs have them, with brackets and blanks."""
    draw = random.Random(7)
    files = {f"data/train-{number:05d}.txt": draw.randbytes(200 + number) for number in range(num_small)}
    files["ai2d(cauldron,llava_format)/train 1.parquet"] = b"PAR1" + draw.randbytes(big)
    files["images.zip"] = b"PK\3\4" + draw.randbytes(big // 2)
    files["README.md"] = b"# pairs\n"
    files["empty.txt"] = b""
    for name, data in files.items():
        path = root / REPO / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return files


def vqa2_of(hub: Hub, own: Path) -> None:
    """The entry of VQA v2 in a folder of one's own, with the files that this hub has at their addresses."""
    own.mkdir(exist_ok=True)
    values = yaml.safe_load((OWN / "vqa2.yaml").read_text())
    files = [item for item in values["files"] if (hub.folder / Path(item["url"]).name).is_file()]
    values["files"] = [{**item, "url": f"{hub.url}/files/{Path(item['url']).name}"} for item in files]
    (own / "vqa2.yaml").write_text(yaml.safe_dump(values))


def kept_from_the_web(own: Path) -> None:
    """Entries whose servers are not ours to ask, as repositories that no hub has."""
    own.mkdir(exist_ok=True)
    for path in sorted(OWN.glob("*.yaml")):
        if "files" in yaml.safe_load(path.read_text()) and not (own / path.name).exists():
            text = f"name: {path.stem}\ntitle: t\nlicence: l\nfolder: {path.stem}\nsplits: {{}}\n"
            (own / path.name).write_text(f"{text}hub: [{{repo: lab/{path.stem}}}]\n")


def entry(**changes: object) -> Entry:
    known = {"name": "pairs", "title": "t", "folder": "pairs", "licence": "CC0-1.0", "splits": {}}
    return Entry(**{**known, "hub": (HubTree(repo=REPO),), **changes})  # type: ignore[arg-type]


@dataclass
class Once:
    """One process, as a call. stop_after: how many times it may be asked whether it is to stop."""

    hub: Hub
    folder: Path
    token: str | None = None
    offline: bool = False
    patience_s: float = 5.0
    max_wait_s: float = 0.05

    def __call__(
        self, given: Entry | None = None, *, wait: Callable[[float], bool] | None = None, **options: object
    ) -> Account:
        def sleep(seconds: float) -> bool:

            time.sleep(min(seconds, 0.02))
            return False

        settings = HubSettings(endpoint=self.hub.url, token=self.token, is_offline=self.offline)
        chosen = {"num_threads": 2, "patience_s": self.patience_s, "interval": MIB, **options}
        with Web(settings, wait=wait or sleep, timeout_s=5, max_wait_s=self.max_wait_s) as web:
            return fetch_set(given or entry(), self.folder, web, settings, Options(**chosen), wait or sleep)  # type: ignore[arg-type]


def found(folder: Path) -> dict[str, bytes]:
    """All files of a set that was fetched, without ours."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and FOLDER not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
