"""Whether what is missing of a run is submitted again: pure decisions from what its submissions have brought.

A submission that brought the run further costs nothing but a place in `finish.max_submissions`. Those that did not are
counted in a row, apart for the two kinds of reasons: tasks or shards failed by themselves (repeating seldom helps), or
the cluster took the tasks away (repeating helps when it is well again, so each waits longer than the one before).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpcdata.config.schema import FinishConfig

_DELAYS_MIN = (0, 0, 2, 10, 30, 60)
"""Before the next submission, by how many in a row the cluster has taken away."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one submission has brought."""

    samples_before: int
    samples_after: int
    failures: tuple[str, ...] = ()
    """What tasks or shards failed with by themselves."""
    was_cancelled: bool = False
    """Every task that did not end well was cancelled by a person."""

    @property
    def advanced(self) -> bool:
        return self.samples_after > self.samples_before


@dataclass(frozen=True, kw_only=True)
class Decision:
    reason: str | None
    """Why to stop; None to submit again."""
    delay_min: int = 0


def decide(rounds: Sequence[Round], hopeless: Sequence[str], num_open: int, finish: FinishConfig) -> Decision:
    """`rounds` since a person last submitted, in order; `hopeless` says of open shards why repeating cannot help."""
    last = rounds[-1] if rounds else None
    failed, lost = _in_vain(rounds)
    if hopeless and len(hopeless) == num_open:
        return Decision(reason=f"{num_open} shards cannot be finished: {hopeless[0]}")
    if last and last.was_cancelled:
        return Decision(reason="its tasks were cancelled")
    if failed >= finish.max_failed:
        message = next(item.failures[0] for item in reversed(rounds) if item.failures)
        return Decision(reason=f"{failed} submissions in a row failed without getting further: {message}")
    if lost >= finish.max_lost:
        return Decision(reason=f"the cluster ended {lost} submissions in a row before they got further")
    if len(rounds) >= finish.max_submissions:
        return Decision(reason=f"it was submitted {len(rounds)} times (finish.max_submissions)")
    return Decision(reason=None, delay_min=_DELAYS_MIN[min(lost, len(_DELAYS_MIN) - 1)])


def _in_vain(rounds: Sequence[Round]) -> tuple[int, int]:
    """(submissions that failed, that the cluster ended) since the last one that got further."""
    failed = lost = 0
    for item in reversed(rounds):
        if item.advanced:
            break
        failed, lost = failed + bool(item.failures), lost + (not item.failures)
    return failed, lost
