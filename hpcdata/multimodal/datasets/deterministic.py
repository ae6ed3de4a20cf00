"""A dataset whose every example has randomness of its own: by seed, index and epoch, whoever asks and in which order.

The seed of an example is (seed * 195172 + index + length * epoch) mod (2^32 - 1), as the data pipeline of Molmo
(allenai/molmo) has it. Its generator draws for the dataset first, then for the preprocessor.

Datasets of one seed draw alike for equal indexes: give each another seed. `MultimodalLoader` seeds by its sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, SupportsIndex

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.multimodal.datasets.base import Dataset, Example, fingerprint_of, index_of
from hpcdata.order.seeding import example_seed


class DeterministicDataset:
    """Preprocessed examples for `torch.utils.data.DataLoader`, with or without a DistributedSampler."""

    def __init__(
        self,
        dataset: Dataset,
        preprocessor: Callable[..., Any] | None = None,
        seed: int = 0,
        n_pad: int = 0,
        preprocessor_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """n_pad: so many more examples, so that all ranks of an evaluation have as many: example 0 again, with
        `metadata["valid"]` False. preprocessor: (example, rng, **preprocessor_kwargs) -> what is given.
        """
        if n_pad < 0 or (n_pad and not len(dataset)):
            raise UserError(f"n_pad={n_pad} of {len(dataset)} examples: padding repeats the first of at least one")
        self.dataset, self.preprocessor, self.seed, self.n_pad = dataset, preprocessor, seed, n_pad
        self.preprocessor_kwargs = dict(preprocessor_kwargs or {})
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.dataset) + self.n_pad

    def get(self, idx: int, epoch: int = 0) -> Any:
        """Raises BadSample for an example that is none."""
        idx = index_of(idx, len(self), "DeterministicDataset")
        rng = np.random.RandomState(example_seed(self.seed, epoch, idx, len(self.dataset)))
        is_padding = idx >= len(self.dataset)
        example: Example = self.dataset.get(0 if is_padding else idx, rng)
        if is_padding:  # the dataset may hold what it gives: it is left as it is
            example = {**example, "metadata": {**(example.get("metadata") or {}), "valid": False}}
        if self.preprocessor is None:
            return example
        return self.preprocessor(example, rng, **self.preprocessor_kwargs)

    def __getitem__(self, item: SupportsIndex) -> Any:
        return self.get(index_of(item, len(self), "DeterministicDataset"), self.epoch)

    def __iter__(self) -> Iterator[Any]:
        return (self[item] for item in range(len(self)))

    def fingerprint(self) -> str:
        """Of the examples, not of what a preprocessor makes of them."""
        return fingerprint_of(self.dataset.fingerprint(), self.seed, self.n_pad)

    def set_epoch(self, epoch: int) -> None:
        """The epoch of `dataset[index]`. Call it before a DataLoader's iterator is made: workers copy the dataset."""
        self.epoch = epoch
