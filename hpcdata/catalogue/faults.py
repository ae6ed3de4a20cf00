"""Why something did not come: told apart by what helps, counted by a reason that stays the same.

gone       the server says that there is nothing (404, 410): only another source helps
refused    it says that we may not (401, 403, 451 ...): a token, a licence that is accepted, another address
busy       it says later (408, 425, 429, 5xx), cannot be reached, or ends in the middle: trying again helps
wrong      what came is not what was promised: another size, another sha256, a page in place of the file
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["gone", "refused", "busy", "wrong"]
_BUSY = (408, 421, 425, 429, 500, 502, 503, 504, 507, 508, 509, 520, 521, 522, 523, 524, 529, 530)
_GONE = (404, 410)


class Fault(Exception):
    """reason: short and stable, such as `http 404`. detail: for a person. retry_after_s: what the server asks for."""

    def __init__(self, kind: Kind, reason: str, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.kind = kind
        self.reason = reason
        self.detail = detail
        self.retry_after_s = retry_after_s


def fault_of_status(status: int, url: str, *, retry_after_s: float | None = None) -> Fault:
    """What a status that is no success means. url: without its query, which may hold a secret."""
    kind: Kind = "busy" if status in _BUSY else "gone" if status in _GONE else "refused"
    return Fault(kind, f"http {status}", f"{url} answers {status}", retry_after_s=retry_after_s)
