"""What is known of crashes and of unreadable records in one shard, kept from attempt to attempt.

OUT/crashes/00003-of-00064.json   {"suspects": [48], "deaths": {"51": 1}, ...}, removed with the commit
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hpcdata.base import files, sealed


@dataclass(kw_only=True)
class CrashNotes:
    """What is known of crashes in one shard, kept from attempt to attempt."""

    path: Path
    suspects: set[int]
    """Positions in the shard where attempts died: the batches that were in work begin there."""
    deaths: dict[int, int]
    """Position in the shard -> children that died of this sample alone."""
    unread: set[int]
    """Positions of those deaths that came in reading, before there was a record."""
    hung: set[int]
    """Positions of those deaths that the alarm made."""
    slow: set[int] = field(default_factory=set)
    """Positions of those deaths that came of `data.max_image_s`: one is enough, as CPU time is the record's own."""
    unreadable: dict[int, list[str]] = field(default_factory=dict)
    """Position in the shard -> attempts of tasks that could not read the bytes of this sample, see `unreadable`."""
    lost_s: float = 0.0
    """Work of the attempts that died since the last claim."""

    @classmethod
    def read(cls, root: Path, name: str) -> CrashNotes:
        path = root / "crashes" / f"{name}.json"
        try:
            values = sealed.read_json(path)
            deaths = {int(position): int(number) for position, number in values["deaths"].items()}
            names = ("suspects", "unread", "hung", "slow")
            suspects, unread, hung, slow = (set(map(int, values.get(name, ()))) for name in names)
            unreadable = {
                int(key): [str(item) for item in tasks] for key, tasks in values.get("unreadable", {}).items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            suspects, deaths, unread, hung, slow, unreadable = set(), {}, set(), set(), set(), {}
        return cls(
            path=path, suspects=suspects, deaths=deaths, unread=unread, hung=hung, slow=slow, unreadable=unreadable
        )

    def save(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        values = {
            "suspects": sorted(self.suspects),
            "deaths": {str(key): self.deaths[key] for key in sorted(self.deaths)},
            "unread": sorted(self.unread),
            "hung": sorted(self.hung),
            "slow": sorted(self.slow),
            "unreadable": {str(key): self.unreadable[key] for key in sorted(self.unreadable)},
        }
        files.write_atomic(self.path, sealed.to_json(values))

    def suspect(self, position: int) -> None:
        if position not in self.suspects:
            self.suspects.add(position)
            self.save()

    def count(self, position: int, death: str, *, in_reading: bool) -> int:
        number = self.deaths[position] = self.deaths.get(position, 0) + 1
        if in_reading:
            self.unread.add(position)
        if death == signal.SIGALRM.name:
            self.hung.add(position)
        if death == signal.SIGPROF.name:
            self.slow.add(position)
        self.save()
        return number

    def note_unreadable(self, positions: Iterable[int], task: str) -> None:
        for position in positions:
            tasks = self.unreadable.setdefault(position, [])
            if task not in tasks:
                tasks.append(task)
        self.save()

    def unreadable_for(self, task: str, most: int) -> frozenset[int]:
        """Samples that so many tasks could not read, should this task not be able to either."""
        return frozenset(position for position, tasks in self.unreadable.items() if len({*tasks, task}) >= most)

    def message(self, position: int) -> str:
        """Why a sample is rejected, the same words for the same behaviour."""
        if position in self.slow:
            return "decoding it takes more CPU time than data.max_image_s"
        in_reading = position in self.unread
        if position in self.hung:
            return f"{'reading' if in_reading else 'decoding'} it does not end"
        return f"the process that {'reads' if in_reading else 'decodes'} it dies"

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
