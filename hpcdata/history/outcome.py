"""How a run came to its end without a person: `report.json`, and the same as a text in `report.txt`.

While jobs are at work only the text is there: it says what to type should they be ended from outside.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hpcdata.base import files, sealed, units
from hpcdata.base.command import to_type
from hpcdata.base.typed import checked
from hpcdata.runs.paths import RunPaths


@dataclass(frozen=True, kw_only=True)
class Outcome:
    outcome: Literal["finished", "stopped"]
    reason: str
    """In one line."""
    next_step: str | None
    """The line to type, None when there is nothing left to do."""
    details: list[str] = field(default_factory=list)
    dataset: str | None = None
    account: str | None = None
    content_digest: str | None = None
    num_shards: int = 0
    num_missing: int = 0
    missing: list[str] = field(default_factory=list)
    """The first missing shards."""
    rounds: list[dict[str, Any]] = field(default_factory=list)
    """Each submission: its jobs, and the samples that were done before and after it."""
    time: float = field(default_factory=lambda: round(time.time(), 3))
    text_sha256: str = field(default="", compare=False)
    """Of report.txt, for `verify`."""


def write_outcome(paths: RunPaths, outcome: Outcome) -> None:
    text = files.to_bytes(describe(outcome, paths.root) + "\n")
    outcome = dataclasses.replace(outcome, text_sha256=hashlib.sha256(text).hexdigest())
    paths.report.unlink(missing_ok=True)  # it tells of the text that is about to go
    files.write_atomic(paths.report.with_suffix(".txt"), text)
    files.write_atomic(paths.report, sealed.to_json(dataclasses.asdict(outcome)))


def write_notice(paths: RunPaths, work: str) -> None:
    """In place of a report while jobs are at work: what to type when they are gone without a word."""
    lines = (
        f"at work   {paths.root}: {work}",
        "          if no job of this run is in the queue any more, something ended them: type the next line",
        f"next      {to_type('resume', paths.root)}",
    )
    files.write_atomic(paths.report.with_suffix(".txt"), files.to_bytes("\n".join(lines) + "\n"))
    paths.report.unlink(missing_ok=True)


def read_outcome(paths: RunPaths) -> Outcome | None:
    """None while the run goes on, or when nobody has taken care of its end."""
    try:
        return checked(Outcome(**sealed.read_json(paths.report)))
    except (OSError, ValueError, TypeError):
        return None


def describe(outcome: Outcome, root: Path) -> str:
    lines = [f"{outcome.outcome:<9} {root}: {outcome.reason}", *(f"          {line}" for line in outcome.details)]
    if outcome.account:
        lines.append(f"account   {outcome.account}")
    if outcome.dataset:
        lines.append(f"dataset   {outcome.dataset}, content digest {outcome.content_digest}")
    if outcome.num_missing:
        names = ", ".join(outcome.missing) + (", ..." if outcome.num_missing > len(outcome.missing) else "")
        lines.append(f"missing   {outcome.num_missing} of {outcome.num_shards} shards: {names}")
    for item in outcome.rounds:
        lines.append(
            f"round {item['round']:<3} by {item['by']}: {item['num_tasks']} tasks in {', '.join(item['job_ids'])}; "
            f"{item['samples_before']} -> {item['samples_after']} samples"
        )
    if outcome.next_step:
        lines.append(f"next      {outcome.next_step}")
    return units.printable("\n".join(lines))
