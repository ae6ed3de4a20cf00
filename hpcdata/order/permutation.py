"""A permutation that is computed, not drawn: any of its places is O(1) away, and nothing is stored.

A Feistel network over the smallest power of two that holds all rows, and cycle walking for results past the end (Black
and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). The halves may differ by one bit, so at most about half of
the results walk on. Round keys are a hash of seed and epoch: no two epochs of any two seeds share them, as they would
if seed + epoch were used. tests/order/test_permutation.py holds it against chance (chi-square, lags, epochs).
"""

from __future__ import annotations

import hashlib

import numpy as np

from hpcdata.native.compiled import kernels

NUM_ROUNDS = 8
_MIN_BITS = 6
"""Smaller networks have too few distinct rounds; walking makes up for the rows that are not there."""
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
_SHIFT = np.uint64(31)
Keys = tuple[np.uint64, ...] | np.ndarray
"""One key a round, or [rounds, n]: keys of its own for each of n values."""


def permute(positions: np.ndarray, num_samples: int, keys: Keys) -> np.ndarray:
    """The Feistel network on as many bits as `num_samples` needs, walking on from results past the end."""
    num_bits = bits_for(num_samples)
    compiled = kernels()
    if compiled is not None and isinstance(keys, tuple):
        return compiled.permute(np.ascontiguousarray(positions), num_samples, num_bits, np.array(keys))
    values = _feistel(positions.astype(np.uint64), keys, num_bits)
    outside = np.flatnonzero(values >= num_samples)
    while outside.size:
        walking = keys[:, outside] if isinstance(keys, np.ndarray) else keys
        values[outside] = _feistel(values[outside], walking, num_bits)
        outside = outside[values[outside] >= num_samples]
    return values.astype(np.int64)


def bits_for(num_samples: int) -> int:
    """Of the network that permutes so many."""
    return max(_MIN_BITS, (num_samples - 1).bit_length())


def round_keys(seed: int, epoch: int) -> tuple[np.uint64, ...]:
    """One 64-bit key a round, from BLAKE2b of both numbers as text: (1, 11) and (11, 1) have nothing in common."""
    return keys_for(f"seed={seed} epoch={epoch}")


def keys_for(purpose: str) -> tuple[np.uint64, ...]:
    """Keys of anything else that is permuted."""
    digest = hashlib.blake2b(f"hpcdata order 1: {purpose}".encode(), digest_size=8 * NUM_ROUNDS)
    return tuple(np.frombuffer(digest.digest(), "<u8"))


def _feistel(values: np.ndarray, keys: Keys, num_bits: int) -> np.ndarray:
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


def _mix(values: np.ndarray, key: np.uint64 | np.ndarray, num_bits: np.uint64) -> np.ndarray:
    """`num_bits` pseudo-random bits of each value: the finalizer of SplitMix64, whose top bits are its best."""
    mixed = values ^ key
    mixed *= _MULTIPLY_1
    mixed ^= mixed >> _SHIFT
    mixed *= _MULTIPLY_2
    mixed >>= np.uint64(64) - num_bits
    return mixed
