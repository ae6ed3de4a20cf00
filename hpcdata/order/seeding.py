"""Randomness of one example, as a pure function of (seed, epoch, example): no worker, rank or restart can change it.

The seed of an example is Molmo's: (seed * 195172 + index + size * epoch) mod (2^32 - 1), so examples that are
augmented here and there with `numpy.random.RandomState(example_seed(...))` are the same. Decisions for whole batches
use `uniform`, a hash of the seeds without a generator for each: neighbouring seeds give unrelated numbers.
"""

from __future__ import annotations

import numpy as np

_MULTIPLIER = 195172
NUM_SEEDS = 2**32 - 1
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
_STEP = np.uint64(0x9E3779B97F4A7C15)


def example_seed(seed: int, epoch: int, index: int, size: int) -> int:
    """The seed in [0, 2^32 - 1) of example `index` of a source of `size` examples."""
    return (seed * _MULTIPLIER + index + size * epoch) % NUM_SEEDS


def example_seeds(seed: int, epochs: np.ndarray, indices: np.ndarray, sizes: np.ndarray | int) -> np.ndarray:
    """`example_seed` of many examples: [n] uint64."""
    base = np.uint64(seed * _MULTIPLIER % NUM_SEEDS)
    modulus = np.uint64(NUM_SEEDS)
    epochs, indices, sizes = (np.asarray(values, np.int64).astype(np.uint64) for values in (epochs, indices, sizes))
    moved = (sizes % modulus) * (epochs % modulus) % modulus  # both below 2^32: the product fits
    return (base + indices % modulus + moved) % modulus


def uniform(seeds: np.ndarray, purpose: int = 0) -> np.ndarray:
    """[n] float64 in [0, 1): one number a seed and purpose, by the finalizer of SplitMix64."""
    mixed = seeds.astype(np.uint64) * _STEP + np.uint64((purpose + 1) * int(_STEP) % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MULTIPLY_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MULTIPLY_2
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
