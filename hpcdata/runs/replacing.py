"""A plan with nothing written gives way to a launch with other settings; tasks that hold the old one notice it.

Nothing is written while no shard is committed and no checkpoint has a sample. `planning` replaces such a plan under
the claim "plan", while no task is at work. A task that had read the old plan before compares it (`PlanGuard`) after
each claim, and before each checkpoint and commit, and ends.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from hpcdata.base import files
from hpcdata.base.errors import Failed
from hpcdata.runs.claims import Claims, Owner
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan
from hpcdata.shards import shard

_FINGERPRINT = re.compile(rb'\n "fingerprint": "([0-9a-f]{64})"')


class PlanChanged(Failed):
    """Another launch has replaced the plan that this task works on."""


class PlanGuard:
    """Tells whether the plan on disk is still the one that was read; costs one stat while the file is the same."""

    def __init__(self, paths: RunPaths, plan: Plan) -> None:
        self._path, self._plan = paths.plan, plan
        self._known: tuple[int, int] | None = None
        """inode and time of the file that was compared."""

    def require_same(self) -> None:
        """Raises PlanChanged. A plan that is missing or cannot be read has not been replaced."""
        try:
            found = self._path.stat()
            known = found.st_ino, found.st_mtime_ns
            if known == self._known:
                return
            fingerprint = read_fingerprint(self._path)
        except OSError:
            return
        if fingerprint and fingerprint != self._plan.fingerprint:
            raise PlanChanged(f"{self._path} was replaced by a launch with other settings: this task ends")
        self._known = known


def read_fingerprint(path: Path) -> str | None:
    """Of a plan.json, without reading the rest of it."""
    match = _FINGERPRINT.search(path.read_bytes())
    return match[1].decode() if match else None


def is_nothing_written(paths: RunPaths) -> bool:
    """Whether the run holds no sample: no committed shard, no checkpoint of one, no dataset."""
    if paths.list_committed() or paths.list_retries() or paths.combined.exists():
        return False
    attempts = (folder for folder in _list(paths.shards) if folder.startswith("tmp_"))
    found = (shard.read_progress(paths.shards / folder) for folder in attempts)
    sealed = (paths.shards / folder / shard.SHARD for folder in _list(paths.shards))
    return not any(item and item.samples_read for item in found) and not any(path.exists() for path in sealed)


def tasks_at_work(paths: RunPaths, timeout_s: float) -> bool:
    """Whether a process holds a claim on anything of the run but its plan."""
    owner = Owner.of_this_process(f"plan-looks-{os.getpid()}")
    claims = Claims(paths.claims, owner, timeout_s=timeout_s)
    return bool(claims.find_alive(claims.list_names() - {"plan"}))


def clear(paths: RunPaths) -> None:
    """Removes what belongs to the old plan: empty checkpoints, notes of crashes, what it found and how it ended."""
    for folder in (paths.shards, paths.root / "attempts", paths.root / "crashes"):
        files.remove_folder(folder)
    for path in (paths.batch_size, paths.halted, paths.report, paths.report.with_suffix(".txt")):
        path.unlink(missing_ok=True)


def _list(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []
