"""Every name in an output directory (`RunPaths`), and which shards, retries and datasets are there."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterable
from pathlib import Path

from hpcdata.base import sealed
from hpcdata.base.command import to_type
from hpcdata.base.errors import Failed
from hpcdata.base.reads import paths_in
from hpcdata.shards.shard import SHARD

_SHARD_NAME = re.compile(r"\d{5,}-of-\d{5,}")
_RETRY_NAME = re.compile(r"retry-\d{5,}")


class RunPaths:
    """Every name in an output directory."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.plan = self.root / "plan.json"
        self.runtime = self.root / "runtime.json"
        self.shards = self.root / "shards"
        self.claims = self.root / "claims"
        self.ledger = self.root / "ledger"
        self.logs = self.root / "logs"
        self.submissions = self.root / "submissions"
        self.report = self.root / "report.json"
        self.halted = self.root / "halted.json"
        self.inputs = self.root / "inputs"
        self.batch_size = self.root / "batch_size.json"
        self.dataset = self.root / "dataset"
        self.parts = self.dataset / "parts"
        self.combined = self.root / "combined.json"
        self._known: set[str] = set()

    def find_shard(self, name: str) -> Path | None:
        """Folder of a committed shard, in `shards/` or where `combine --move_files` has left it."""
        for folder in (self.shards / name, self.parts / name):
            if (folder / SHARD).exists():
                return folder
        return None

    def list_committed(self) -> set[str]:
        """Names of the shards that are committed, each looked into once."""
        for folder in (self.shards, self.parts):
            for name in _list_names(folder):
                if (
                    name not in self._known
                    and _SHARD_NAME.fullmatch(name)
                    and os.path.exists(f"{folder}/{name}/{SHARD}")
                ):
                    self._known.add(name)
        return self._known

    def list_names(self) -> tuple[set[str], dict[str, list[str]]]:
        """(names of shards that look committed, shard -> names of its tmp_ folders), whatever the folders hold.

        Costs one listing and no look into a folder: shards get their names by one rename of a complete folder. For
        those that have lost their content since, see `find_remains`.
        """
        names = _list_names(self.shards)
        attempts: dict[str, list[str]] = {}
        for name in names:
            if name.startswith("tmp_"):
                attempts.setdefault(name[4:].split(".", 1)[0], []).append(name)
        return names | _list_names(self.parts), attempts

    def find_remains(self, names: Iterable[str], budget_s: float) -> set[str]:
        """Which of the listed shards have no shard.json: what is left of folders that somebody began to delete.

        One call to the file system a name, in any order and for `budget_s` at most; what was found whole is not
        looked at again. A run whose folders cannot all be looked at in time has `combine` as the last instance.
        """
        unseen = [name for name in names if name not in self._known]
        first = random.randrange(len(unseen)) if unseen else 0
        unseen = unseen[first:] + unseen[:first]
        until = time.monotonic() + budget_s
        remains: set[str] = set()
        for number, name in enumerate(unseen):
            if number % 256 == 0 and number and time.monotonic() > until:
                break
            whole = os.path.exists(f"{self.shards}/{name}/{SHARD}") or os.path.exists(f"{self.parts}/{name}/{SHARD}")
            (self._known if whole else remains).add(name)
        return remains

    def list_retries(self) -> dict[str, Path]:
        """Name -> folder of the parts that `hpcdata.rejects --retry` has added, in their order."""
        dataset = self.complete_dataset()
        found: dict[str, Path] = {}
        for folder in (self.shards, self.parts, *([dataset / "parts"] if dataset else [])):
            for path in paths_in(folder, "retry-*"):
                if _RETRY_NAME.fullmatch(path.name) and (path / SHARD).exists():
                    found.setdefault(path.name, path)
        return dict(sorted(found.items()))

    def complete_dataset(self) -> Path | None:
        """The dataset that combine made of all shards, after which the shards themselves may be gone."""
        try:
            combined = sealed.read_json(self.combined)
            dataset, complete = self.root / combined["dataset"], combined["complete"]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError):
            raise Failed(f"{self.combined} is damaged: remove it, and {to_type('combine', self.root)}") from None
        return dataset if complete and (dataset / "manifest.json").exists() else None


def _list_names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()
