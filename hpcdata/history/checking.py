"""Whether what stands in a run beside its shards is still what was written: for `verify`.

Settings, listings of inputs, checkpoints, ledgers, submissions with their scripts, claims, notes of crashes, the
report. Not the logs of a scheduler, of which nothing is made.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from hpcdata.base import sealed
from hpcdata.base.digest import sha256_file
from hpcdata.base.errors import UserError
from hpcdata.history import submissions
from hpcdata.history.ledger import read_ledgers
from hpcdata.history.outcome import read_outcome
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan, load_runtime
from hpcdata.runs.stage import find_stage
from hpcdata.shards import shard

_SEALED = ("submissions/*.json", "claims/[!.]*", "crashes/*.json")


def problems_of(paths: RunPaths, plan: Plan) -> list[str]:
    """A line for each file that is not what was written."""
    found = [*_not_as_planned(paths, plan), *_faults(paths)]
    return [f"{path.relative_to(paths.root)}: {fault}" for path, fault in found]


def damaged_checkpoints(shards: Path) -> list[str]:
    """Of shards in work: what a checkpoint does not vouch for any longer is made again."""
    problems = []
    for folder in sorted(shards.glob("tmp_*")):
        data = _bytes(folder / shard.PROGRESS)
        progress = shard.read_progress(folder)
        if progress is None and data:
            problems.append(f"{folder.name}/{shard.PROGRESS}: {sealed.fault_of(data) or 'it is damaged'}")
        if (note := _bytes(folder / shard.WORK)) and not _is_work_note(note):
            problems.append(f"{folder.name}/{shard.WORK}: it is damaged")
        for name, (size, sha256) in progress.files.items() if progress else ():
            with contextlib.suppress(FileNotFoundError):  # its task goes on, and has made another
                if sha256_file(folder / name, size=size) != sha256:
                    problems.append(f"{folder.name}/{name}: its first {size} bytes are not what was written")
    return problems


def sealed_shards(paths: RunPaths) -> Mapping[str, set[str]]:
    """Name of a shard or retry -> sha256 of each shard.json with which processes have completed it."""
    found: dict[str, set[str]] = {}
    for name, events in read_ledgers(paths.ledger):
        if sealed.fault_of_lines((paths.ledger / f"{name}.jsonl").read_bytes()):
            continue
        for event in events:
            if event.get("event") == "seal":
                found.setdefault(event["shard"], set()).add(event.get("shard_sha256", ""))
            for part, sha256 in event.get("shards_sha256", {}).items():
                found.setdefault(part, set()).add(sha256)
    return found


def _is_work_note(data: bytes) -> bool:
    try:
        shard.parse_work_note(data)
    except ValueError:
        return False
    return True


def _not_as_planned(paths: RunPaths, plan: Plan) -> Iterator[tuple[Path, str]]:
    for item in plan.inputs:
        path = paths.root / item.file.path
        if item.sha256 and path.exists() and sha256_file(path) != item.sha256:
            yield path, "it is not the listing that was planned"
    if not paths.runtime.exists():
        return
    try:
        runtime = load_runtime(paths.root)
    except UserError as error:
        yield paths.runtime, str(error)
        return
    settings = find_stage(plan.config.stage).settings
    mine, planned = (settings(config.semantic_fields(with_added=True)) for config in (runtime, plan.config))
    for name in sorted(mine.keys() | planned.keys()):
        if mine.get(name) != planned.get(name):
            yield paths.runtime, f"{name} is {mine.get(name)}, and {planned.get(name)} in the plan"


def _faults(paths: RunPaths) -> Iterator[tuple[Path, str]]:
    for pattern in _SEALED:
        for path in sorted(paths.root.glob(pattern)):
            with contextlib.suppress(FileNotFoundError):
                data = path.read_bytes()
                is_begun = path.parent == paths.claims and not data  # its process was killed, or is about to write
                if not is_begun and (fault := sealed.fault_of_json(data, path.name)):
                    yield path, fault
    for path in sorted(paths.ledger.glob("*.jsonl")):
        if fault := sealed.fault_of_lines(_bytes(path)):
            yield path, fault
    for item in submissions.read(paths).submissions:
        path = submissions.script(paths, item.job_id)
        if item.script_sha256 and (data := _bytes(path)) and hashlib.sha256(data).hexdigest() != item.script_sha256:
            yield path, "it is not what was given to sbatch"
    text = paths.report.with_suffix(".txt")
    outcome, data = read_outcome(paths), _bytes(text)
    if outcome and outcome.text_sha256 and data and hashlib.sha256(data).hexdigest() != outcome.text_sha256:
        yield text, f"it is not what was written with {paths.report.name}"


def _bytes(path: Path) -> bytes:
    """Nothing for what has gone meanwhile."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return b""
