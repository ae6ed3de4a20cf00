"""Datasets with weights.   pytest tests/multimodal/loading/test_mixture.py

vectors/mixture.json.gz: orders that Molmo's robot fork and Molmo 2 made themselves, of 64 settings.
"""

import gzip
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from hpcdata.base.errors import UserError
from hpcdata.multimodal.loading.mixture import IterableDatasetMixture, group_rates

VECTORS = json.loads(gzip.decompress((Path(__file__).parent.parent / "vectors" / "mixture.json.gz").read_bytes()))
CASES = [("molmo" if name == "fork" else "molmo2", case) for name, cases in VECTORS.items() for case in cases]


class Sized:
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def get(self, item, rng):
        return {"item": item, "draw": int(rng.randint(1000))}


@pytest.mark.parametrize("number", range(len(CASES)))
def test_the_order_is_that_of_molmo(number):
    generation, case = CASES[number]
    for who, expected in case["order"].items():
        rank, worker = (int(part.lstrip("rankwoe")) for part in who.split("/"))
        mixture = IterableDatasetMixture(
            {name: Sized(size) for name, size in zip("abc", case["sizes"], strict=False)},
            mixture_rates=case["rates"] or [1.0],
            seed=case["seed"],
            global_batch_size=case["global_batch"],
            start_index=case["start_index"],
            world_size=case["world"],
            rank=rank,
            stratify=case["stratify"],
            generation=generation,
        )
        draws = mixture.draws(worker, max(1, case["workers"]))
        found = [["abc"[draw.source], draw.item] for draw in itertools.islice(draws, len(expected))]
        assert found == expected, who


def test_iterating_gives_examples_with_randomness_of_their_own():
    def first(number):
        mixture = IterableDatasetMixture([Sized(5)], seed=7)
        return [(example["item"], example["draw"]) for example in itertools.islice(mixture, number)]

    found = first(10)
    assert found == first(10)
    assert [item for item, _ in found[:5]] != [item for item, _ in found[5:]]
    assert len({draw for _, draw in found}) == 10


def test_it_goes_on_at_a_start_index():
    options = {"seed": 3, "global_batch_size": 4}
    whole = IterableDatasetMixture([Sized(5), Sized(3)], [1, 2], **options).draws()
    later = IterableDatasetMixture([Sized(5), Sized(3)], [1, 2], start_index=8, **options).draws()
    assert list(itertools.islice(whole, 8, 20)) == list(itertools.islice(later, 12))


def test_defect_14_an_order_that_is_not_shuffled_is_not():
    draws = IterableDatasetMixture([Sized(4)], shuffle=False, generation="molmo2").draws()
    assert [draw.item for draw in itertools.islice(draws, 6)] == [0, 1, 2, 3, 0, 1]


def test_defect_25_rates_of_groups_are_shared_out_by_square_roots():
    sizes = {"a": 100, "b": 400, "c": 10_000}
    groups = [
        {"rate": 0.3, "datasets": {"a": None, "b": None}},
        {"rate": 0.7, "datasets": {"c": 0.25}},
    ]
    rates = group_rates(groups, sizes)
    assert rates == pytest.approx({"a": 0.1, "b": 0.2, "c": 0.7})
    assert group_rates([{"rate": 1, "datasets": {"a": 400, "b": None}}], sizes) == pytest.approx({"a": 0.5, "b": 0.5})
    with pytest.raises(UserError, match="a group names dataset d, there are a, b, c"):
        group_rates([{"rate": 1, "datasets": {"d": None}}], sizes)


def test_datasets_without_names_have_those_of_their_classes():
    assert IterableDatasetMixture([Sized(1), Sized(2)]).names == ("Sized_0", "Sized_1")
    assert IterableDatasetMixture({"x": Sized(1), "y": Sized(2)}).names == ("x", "y")


def test_wrong_options_are_refused():
    with pytest.raises(UserError, match="1 weights for 2 datasets"):
        IterableDatasetMixture([Sized(1), Sized(2)], [0.5])
    with pytest.raises(UserError, match="weights and mixture_rates"):
        IterableDatasetMixture([Sized(1)], [0.5], mixture_rates=[0.5])
    with pytest.raises(UserError, match="must be a multiple of world_size=2"):
        IterableDatasetMixture([Sized(1)], global_batch_size=3, world_size=2)


def test_equal_rates_are_floats_as_molmo_has_them():
    """float32 rates decide where a draw falls between two datasets."""
    draws = IterableDatasetMixture([Sized(5)] * 3, [0.5, 0.3, 0.2], seed=1, global_batch_size=1000).draws()
    expected = np.random.RandomState(1).choice(3, size=1000, p=np.array([0.5, 0.3, 0.2], np.float32))
    assert [draw.source for draw in itertools.islice(draws, 1000)] == expected.tolist()
