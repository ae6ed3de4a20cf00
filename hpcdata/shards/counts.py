"""The account of a shard or a dataset: what became of its samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from hpcdata.shards.reject_ledger import DUPLICATE, RejectRow


@dataclass(kw_only=True)
class Counts:
    """The account of a shard or a dataset: inputs = written + rejected + duplicate (+ missing, when combined early)."""

    inputs: int = 0
    written: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    duplicate: int = 0
    missing: int = 0
    truncated_texts: int = 0
    text_tokens: int = 0
    image_tokens: int = 0
    images: int = 0
    compared_codes: int = 0
    """Of a sample of the images, where `image.precision` is not fp32."""
    equal_codes: int = 0
    """Those of them that fp32 gives too."""
    unapplied_profiles: int = 0
    """Pictures whose color profile (or gamma of a PNG) is not applied. Older versions did not count them."""

    fixed_placeholders: int = 0
    """Samples that got markers of their pictures, see `data.placeholders`."""

    def __add__(self, other: Counts) -> Counts:
        mine, theirs = vars(self), vars(other)
        sums = {name: mine[name] + theirs[name] for name in mine if name != "rejected"}
        rejected = Counter(self.rejected)
        rejected.update(other.rejected)  # unlike `+`, keeps what is negative: a retry takes rejects back
        return Counts(**sums, rejected=Counter({reason: number for reason, number in rejected.items() if number}))

    def is_balanced(self) -> bool:
        return self.inputs == self.written + self.rejected.total() + self.duplicate + self.missing

    def is_possible(self) -> bool:
        """Balanced, and nothing was counted less than no times."""
        numbers = [*self.rejected.values(), *(number for name, number in vars(self).items() if name != "rejected")]
        return min(numbers) >= 0 and self.is_balanced()

    def describe(self) -> str:
        """The account in one line."""
        text = (
            f"{self.inputs} inputs = {self.written} written + {self.rejected.total()} rejected + "
            f"{self.duplicate} duplicate"
        )
        return text + (f" + {self.missing} missing" if self.missing else "")

    def to_mapping(self) -> dict[str, int | dict[str, int]]:
        values = {**vars(self), "rejected": dict(sorted(self.rejected.items()))}
        for name in ("unapplied_profiles", "fixed_placeholders"):  # older versions did not count them
            if not values[name]:
                del values[name]
        return values

    @classmethod
    def from_mapping(cls, values: dict) -> Counts:
        return cls(**{**values, "rejected": Counter(values["rejected"])})


def count_batch(num_written: int, rejects: Sequence[RejectRow], **others: int) -> Counts:
    """The account of a batch of which so many samples were written. others: further fields of `Counts`."""
    reasons = Counter(row.reason for row in rejects)
    duplicate = reasons.pop(DUPLICATE, 0)
    return Counts(
        inputs=num_written + len(rejects), written=num_written, duplicate=duplicate, rejected=reasons, **others
    )
