"""How many rejects a run bears (`data.max_rejected`), and the note `halted.json` that stops its tasks at more.

The note holds the limit that was exceeded: with another one, tasks go on. Nothing of it changes what is written.
"""

from __future__ import annotations

from pathlib import Path

from hpcdata.base import files, sealed
from hpcdata.base.command import to_type
from hpcdata.config.schema import RunConfig
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import load_runtime
from hpcdata.shards.counts import Counts

FIRST_SHARDS = 2
"""So many committed shards must be there before a run is stopped early."""
NEARLY_WHOLE, MOST = 0.95, 0.5
"""Without a limit: the share that stops a run early, when it is for one reason, and the share that fails its end."""


def too_many(counts: Counts, config: RunConfig, output_dir: Path) -> str | None:
    """Why the account of a whole run is no success; None if it is."""
    limit = _limit(config, MOST)
    if limit is None or counts.rejected.total() <= limit * counts.inputs:
        return None
    return _told(counts, config, output_dir)


def too_many_so_far(counts: Counts, num_shards: int, config: RunConfig, output_dir: Path) -> str | None:
    """Why a run should stop early, by the account of the shards that it has committed; None if it should not."""
    limit = _limit(config, NEARLY_WHOLE)
    number = counts.rejected.total()
    if config.data.max_rejected is None:  # one fault of the whole input, such as a wrong path
        number = max(counts.rejected.values(), default=0)
    if limit is None or num_shards < FIRST_SHARDS or number <= limit * counts.inputs:
        return None
    return _told(counts, config, output_dir)


def halt(output_dir: Path, reason: str, config: RunConfig) -> None:
    """Leaves the note for all tasks of the run."""
    note = {"reason": reason, "limit": config.data.max_rejected}
    files.write_atomic(RunPaths(output_dir).halted, sealed.to_json(note))


def halted(output_dir: Path, config: RunConfig | None = None) -> str | None:
    """Why the tasks of a run have stopped early, unless its limit is another one by now."""
    try:
        note = sealed.read_json(RunPaths(output_dir).halted)
        reason, limit = str(note["reason"]), note["limit"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return reason if limit == (config or load_runtime(output_dir)).data.max_rejected else None


def _limit(config: RunConfig, default: float) -> float | None:
    """The share that is borne; None where rejects are what was asked for."""
    if config.data.max_rejected is not None:
        return config.data.max_rejected
    return None if config.stage == "copy" and config.copy.needs != "any" else default


def _told(counts: Counts, config: RunConfig, output_dir: Path) -> str:
    reasons = ", ".join(f"{reason} {number}" for reason, number in counts.rejected.most_common(3))
    limit = "" if config.data.max_rejected is None else f", data.max_rejected={config.data.max_rejected} allows fewer"
    return (
        f"{counts.rejected.total()} of {counts.inputs} inputs are rejected ({reasons}){limit}: see "
        f"{to_type('rejects', output_dir)}; if that is as it should be, "
        f"{to_type('resume', output_dir, 'data.max_rejected=1')}"
    )
