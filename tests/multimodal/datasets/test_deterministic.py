"""Randomness by seed, index and epoch.   pytest tests/multimodal/datasets/test_deterministic.py"""

from __future__ import annotations

import numpy as np
import pytest

from hpcdata.base.errors import UserError
from hpcdata.multimodal import Dataset, DatasetBase, DeterministicDataset

VECTORS = (
    (0, 1, 0, 0, 209652396, 398764591),
    (0, 1, 0, 5, 953453411, 236996814),
    (0, 7, 0, 1, 327741615, 976413892),
    (0, 7, 3, 0, 218175338, 303761048),
    (0, 7, 3, 5, 1652587937, 1705144139),
    (0, 1000, 0, 1, 659662259, 882709079),
    (0, 1000, 3, 0, 218175338, 303761048),
    (0, 1000, 3, 5, 1511151514, 68672997),
    (1, 1, 0, 1, 1640264562, 826788586),
    (1, 7, 0, 0, 1575464392, 809839462),
    (1, 7, 0, 5, 760958927, 1635207485),
    (1, 7, 3, 1, 1210605127, 1939945439),
    (1, 1000, 0, 0, 1575464392, 809839462),
    (1, 1000, 0, 5, 1353257284, 115294007),
    (1, 1000, 3, 1, 1507553442, 582034726),
    (42, 1, 0, 0, 1868005504, 610814822),
    (42, 1, 0, 5, 346637832, 510422427),
    (42, 7, 0, 1, 1827527114, 1542817326),
    (42, 7, 3, 0, 1160680490, 799922403),
    (42, 7, 3, 5, 1300980332, 2099487691),
    (42, 1000, 0, 1, 1357889149, 1030390511),
    (42, 1000, 3, 0, 1160680490, 799922403),
    (42, 1000, 3, 5, 1478110208, 810925129),
    (50189, 1, 0, 1, 60736634, 2048515921),
    (50189, 7, 0, 0, 582142971, 1781057885),
    (50189, 7, 0, 5, 1530857787, 666510165),
    (50189, 7, 3, 1, 239404110, 1496837014),
    (50189, 1000, 0, 0, 582142971, 1781057885),
    (50189, 1000, 0, 5, 1189192412, 1758927729),
    (50189, 1000, 3, 1, 96338278, 1887884898),
)
"""(seed, length, index, epoch, the first two draws of randint(0, 2**31 - 1)): made by running the code of the robot
fork of Molmo (mattw-ai2/robo_mm_olmo_gantry at 6832f80).
"""


class Draws(Dataset):
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def get(self, item, rng):
        return {"item": item, "draws": [int(rng.randint(0, 2**31 - 1)) for _ in range(2)]}


class Held(DatasetBase):
    def load(self):
        return [{"text": "zero", "metadata": {"id": 0}}, {"text": "one"}]

    def get(self, item, rng):
        return self.data[item]  # its own dictionary


def test_every_example_draws_as_those_of_the_documents() -> None:
    for seed, size, index, epoch, *draws in VECTORS:
        assert DeterministicDataset(Draws(size), None, seed).get(index, epoch)["draws"] == draws


def test_the_preprocessor_draws_behind_the_dataset_from_the_same_generator() -> None:
    def preprocess(example, rng, *, is_training=True):
        return [*example["draws"], int(rng.randint(0, 2**31 - 1)), is_training]

    dataset = DeterministicDataset(dataset=Draws(7), preprocessor=preprocess, seed=42)
    expected = np.random.RandomState((42 * 195172 + 3 + 7 * 5) % (2**32 - 1)).randint(0, 2**31 - 1, 3)
    assert dataset.get(3, 5) == [*expected, True]
    evaluated = DeterministicDataset(Draws(7), preprocess, 42, preprocessor_kwargs={"is_training": False})
    assert evaluated.get(3, 5) == [*expected, False]


def test_the_epoch_of_an_index_is_the_one_that_is_set() -> None:
    dataset = DeterministicDataset(Draws(7), seed=1)
    dataset.set_epoch(4)
    assert dataset[3] == dataset.get(3, 4) != dataset.get(3)
    assert [example["item"] for example in dataset] == list(range(7))
    with pytest.raises(IndexError):
        dataset[7]


def test_defect_11_padding_leaves_the_example_that_it_repeats_valid() -> None:
    dataset = DeterministicDataset(Held(), seed=1, n_pad=2)
    assert len(dataset) == 4
    assert [example["metadata"] for example in (dataset[2], dataset[3])] == [{"id": 0, "valid": False}] * 2
    assert dataset[0] == {"text": "zero", "metadata": {"id": 0}}
    assert dataset[1] == {"text": "one"}
    with pytest.raises(UserError, match="n_pad=1 of 0 examples"):
        DeterministicDataset(Draws(0), n_pad=1)


@pytest.mark.slow
def test_it_is_loaded_by_workers_and_shared_out_by_a_distributed_sampler() -> None:
    from torch.utils.data import DataLoader, DistributedSampler

    dataset = DeterministicDataset(Draws(10), seed=3, n_pad=2)
    found = []
    for rank in range(2):
        sampler = DistributedSampler(dataset, num_replicas=2, rank=rank, shuffle=True, seed=5)  # type: ignore[arg-type]
        loader = DataLoader(dataset, batch_size=2, sampler=sampler, num_workers=2, collate_fn=list)  # type: ignore[arg-type]
        found += [example for batch in loader for example in batch]
    assert sorted(example["item"] for example in found) == sorted([*range(10), 0, 0])
    alone = {example["item"]: example for example in dataset if example.get("metadata") is None}
    assert all(example == alone[example["item"]] for example in found if "metadata" not in example)
