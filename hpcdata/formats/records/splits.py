"""Which shards are for training and which for validation: whole shards, drawn by a seed, the same at any time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from hpcdata.base.errors import UserError

Split = dict[str, list[str]]
"""Its name -> the names of its shards, sorted."""


def parse_ratios(text: str) -> dict[str, float]:
    """`train:0.9,val:0.1` as shares that add up to 1. Raises UserError."""
    shares = dict[str, float]()
    for item in text.split(","):
        name, _, number = item.strip().partition(":")
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if not name.isidentifier() or not 0 <= share < float("inf") or name in shares:
            raise UserError(f"--split={text}: {item!r} is no share, expected for example train:0.9,val:0.1")
        shares[name] = share
    total = sum(shares.values())
    if not total:
        raise UserError(f"--split={text}: all shares are 0")
    return {name: share / total for name, share in shares.items()}


def split_shards(counts: Mapping[str, int], shares: Mapping[str, float], seed: int) -> Split:
    """Shares of the samples, as near as whole shards allow; each share above 0 has a shard at least.

    counts: shard -> its samples. What remains of the shares of others belongs to the largest. Raises UserError for
    fewer shards than shares.
    """
    wanted = sorted((name for name in shares if shares[name]), key=lambda name: shares[name])
    if len(wanted) > len(counts):
        raise UserError(
            f"{len(counts)} shards cannot be split into {', '.join(sorted(wanted))}: copy the records again with a "
            "smaller data.shard_size"
        )
    drawn = sorted(counts, key=lambda name: hashlib.blake2b(f"{seed}/{name}".encode()).digest())
    total, found = sum(counts.values()), {name: list[str]() for name in shares}
    for number, name in enumerate(wanted):
        num_others, samples = len(wanted) - number - 1, 0
        while drawn and (not num_others or not found[name] or _nears(samples, counts[drawn[-1]], shares[name] * total)):
            if num_others and found[name] and len(drawn) <= num_others:
                break
            samples += counts[drawn[-1]]
            found[name].append(drawn.pop())
    return {name: sorted(shards) for name, shards in found.items()}


def _nears(samples: int, more: int, goal: float) -> bool:
    """Whether a split of so many samples is nearer to its share with the next shard."""
    return samples + more / 2 <= goal
