"""The order of samples as a pure function of (seed, epoch, position): nothing is stored, any place is O(1) away.

A shuffled epoch is a permutation of the rows that is computed, not drawn: a Feistel network over the smallest
power of two that holds them, and cycle walking for results past the end (Black and Rogaway, "Ciphers with Arbitrary
Finite Domains", 2002). The halves may differ by one bit, so at most about half of the results walk on. Round keys
are a hash of seed and epoch: no two epochs of any two seeds share them, as they would if seed + epoch were used.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np

NUM_ROUNDS = 8
_MIN_BITS = 6
"""Smaller networks have too few distinct rounds; walking makes up for the rows that are not there."""
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
_SHIFT = np.uint64(31)


class Order(Protocol):
    """Which row stands at which position of an epoch."""

    def rows(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """positions: [n] integers in [0, num_samples) -> rows: [n] int64."""
        ...


@dataclass(frozen=True, kw_only=True)
class SequentialOrder:
    """The order of the dataset, the same in every epoch."""

    num_samples: int

    def rows(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        return _checked(positions, self.num_samples)


@dataclass(frozen=True, kw_only=True)
class ShuffledOrder:
    """A permutation of all rows, another one for every seed and epoch."""

    num_samples: int
    seed: int = 0

    def rows(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        values = _checked(positions, self.num_samples).astype(np.uint64)
        keys = round_keys(self.seed, epoch)
        num_bits = max(_MIN_BITS, (self.num_samples - 1).bit_length())
        values = _feistel(values, keys, num_bits)
        outside = np.flatnonzero(values >= self.num_samples)
        while outside.size:
            values[outside] = _feistel(values[outside], keys, num_bits)
            outside = outside[values[outside] >= self.num_samples]
        return values.astype(np.int64)


def round_keys(seed: int, epoch: int) -> tuple[np.uint64, ...]:
    """One 64-bit key a round, from BLAKE2b of both numbers as text: (1, 11) and (11, 1) have nothing in common."""
    digest = hashlib.blake2b(f"hpcdata order 1: seed={seed} epoch={epoch}".encode(), digest_size=8 * NUM_ROUNDS)
    return tuple(np.frombuffer(digest.digest(), "<u8"))


def _feistel(values: np.ndarray, keys: tuple[np.uint64, ...], num_bits: int) -> np.ndarray:
    """A bijection of [0, 2^num_bits); even rounds change the low bits, odd rounds the high bits."""
    low_bits = np.uint64(num_bits // 2)
    high_bits = np.uint64(num_bits - num_bits // 2)
    low = values & ((np.uint64(1) << low_bits) - np.uint64(1))
    high = values >> low_bits
    for round_index, key in enumerate(keys):
        if round_index % 2:
            high ^= _mix(low, key, high_bits)
        else:
            low ^= _mix(high, key, low_bits)
    return (high << low_bits) | low


def _mix(values: np.ndarray, key: np.uint64, num_bits: np.uint64) -> np.ndarray:
    """`num_bits` pseudo-random bits of each value: the finalizer of SplitMix64, whose top bits are its best."""
    mixed = values ^ key
    mixed *= _MULTIPLY_1
    mixed ^= mixed >> _SHIFT
    mixed *= _MULTIPLY_2
    mixed >>= np.uint64(64) - num_bits
    return mixed


def _checked(positions: np.ndarray, num_samples: int) -> np.ndarray:
    positions = np.asarray(positions, dtype=np.int64)
    if positions.size and not 0 <= positions.min() <= positions.max() < num_samples:
        raise IndexError(f"positions {positions.min()} to {positions.max()} of an order of {num_samples} samples")
    return positions
