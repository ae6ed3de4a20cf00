"""Changes of a mixture's weights that are too many for a state: a file beside it, in which the state has its place.

One JSON line a change, appended durably by rank 0. Each has a digest of itself and of all before it, so that a state
needs the last one alone, and states of before, or of another branch of a training, find theirs as well. A line also
says how often each source had been drawn by then: whoever restores a state recomputes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hpcdata.base import files
from hpcdata.base.errors import UserError

START = "0" * 32
"""The digest of no changes."""


class Change(NamedTuple):
    """Integer weights from a position of an epoch on."""

    epoch: int
    position: int
    weights: tuple[int, ...]
    drawn: tuple[int, ...] | None = None
    """How often each source has been drawn before, where that is known."""

    def behind(self, digest: str) -> str:
        """The digest of it and of the changes with `digest`."""
        data = json.dumps([digest, self.epoch, self.position, self.weights])
        return hashlib.blake2b(data.encode(), digest_size=16).hexdigest()


def digest_of(changes: Sequence[Change]) -> str:
    digest = START
    for change in changes:
        digest = change.behind(digest)
    return digest


class WeightLedger:
    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._written: set[str] | None = None

    def add(self, changes: Sequence[Change], digests: tuple[str, str]) -> None:
        """Appends those that are not in it. `digests`: of the changes without the last, and of all."""
        before, digest = digests
        if self._written is None:
            self._written = set(self._lines())
        if digest in self._written:
            return
        missing = changes[-1:]
        if before != START and before not in self._written:
            before, missing = START, changes
        lines = []
        for change in missing:
            after = change.behind(before)
            lines.append(json.dumps({"digest": after, "before": before, **change._asdict()}))
            before = after
            self._written.add(after)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+b") as file:
            if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                file.write(b"\n")  # behind a line whose writer was killed
            file.write("".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())

    def read(self, digest: str) -> list[Change]:
        """The changes with this digest, in their order. Raises UserError when they are not there."""
        lines, found = self._lines(), []
        while digest != START:
            line = lines.pop(digest, None)
            if line is None:
                raise UserError(
                    f"{self.path} does not hold the changes of weights that the state was saved with ({digest}): "
                    "restore the file that belongs to it"
                )
            change, before = line
            if change.behind(before) != digest:
                raise UserError(f"{self.path} is damaged: the change with digest {digest} is another one")
            found.append(change)
            digest = before
        return found[::-1]

    def _lines(self) -> dict[str, tuple[Change, str]]:
        """digest -> change, and the digest before it; what is no line of a ledger is passed over."""
        found = {}
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        for line in data.splitlines():
            try:
                values = files.parse_json(line, "a line")
                drawn = values["drawn"] and tuple(map(int, values["drawn"]))
                change = Change(values["epoch"], values["position"], tuple(map(int, values["weights"])), drawn)
                found[str(values["digest"])] = change, str(values["before"])
            except (ValueError, TypeError, KeyError, OverflowError):
                continue
        return found
