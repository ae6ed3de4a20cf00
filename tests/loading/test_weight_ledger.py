"""Weights that are changed more often than a state can hold.

pytest tests/loading/test_weight_ledger.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hpcdata import Mixture, Source, TokenDataset, TokenLoader
from hpcdata.base.errors import UserError
from hpcdata.order.mixing.weight_ledger import WeightLedger
from hpcdata.order.streams import MixtureStream, SizedMixture, SizedSource
from tests.loading import made


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    folder = tmp_path_factory.mktemp("sources")
    examples = made.pairs(20)
    return [
        Source(dataset=TokenDataset(made.make_dataset(folder / name, [examples])), name=name)
        for name in ("a", "b", "c")
    ]


def loader_of(
    sources: list[Source], path: Path | None, rank: int = 0, world_size: int = 1, **options: object
) -> TokenLoader:
    given = {"global_batch_size": 4, "layout": "text", "weights_ledger": path, **options}
    return TokenLoader(Mixture(sources), rank=rank, world_size=world_size, **given)  # type: ignore[arg-type]


def take(loader: TokenLoader, number: int) -> list[list[int]]:
    batches = iter(loader)
    return [next(batches)["index"].tolist() for _ in range(number)]


def change(loader: TokenLoader, number: int) -> None:
    loader.set_weights({"a": 1 + number % 7, "b": 1 + number % 3, "c": number % 5})


@pytest.mark.parametrize("packing", [None, 64])
def test_many_changes_are_restored_on_any_world_size(
    sources: list[Source], tmp_path: Path, packing: int | None
) -> None:
    loader = loader_of(sources, tmp_path / "weights.jsonl", packing=packing)
    for number in range(40):
        take(loader, 1)
        change(loader, number)
    state = loader.state_dict()
    assert len(json.dumps(state)) < 1024
    expected = take(loader, 30)
    ranks = [loader_of(sources, tmp_path / "weights.jsonl", rank, 2, packing=packing) for rank in range(2)]
    for each in ranks:
        each.load_state_dict(json.loads(json.dumps(state)))
    for step in expected:
        assert [index for each in ranks for index in take(each, 1)[0]] == step
    assert ranks[0].account() == loader.account()


def test_a_training_that_goes_back_and_on_by_other_weights_leaves_both_ways_in_the_file(
    sources: list[Source], tmp_path: Path
) -> None:
    path = tmp_path / "folder/weights.jsonl"
    loader, states, expected = loader_of(sources, path), [], []
    for branch in range(2):
        for number in range(4):
            take(loader, 1)
            change(loader, number + 10 * branch)
        states.append(loader.state_dict())
        expected.append(take(loader, 5))
        loader.load_state_dict(states[0])
    with open(path, "ab") as file:
        file.write(b'{"digest": "torn')  # by a kill
    again = loader_of(sources, path)
    for state, batches in zip(states, expected, strict=True):
        again.load_state_dict(state)
        assert take(again, 5) == batches
    change(again, 5)
    late = again.state_dict()
    assert loader_of(sources, path).load_state_dict(late) is None


def test_a_state_without_its_file_is_refused_and_leaves_the_loader_where_it_was(
    sources: list[Source], tmp_path: Path
) -> None:
    loader = loader_of(sources, tmp_path / "weights.jsonl")
    take(loader, 1)
    change(loader, 1)
    state = loader.state_dict()
    with pytest.raises(UserError, match="weights_ledger=PATH"):
        loader_of(sources, None).load_state_dict(state)
    other = loader_of(sources, tmp_path / "other.jsonl")
    take(other, 2)
    before = other.state_dict()
    with pytest.raises(UserError, match=r"other\.jsonl does not hold the changes"):
        other.load_state_dict(state)
    assert other.state_dict() == before
    line = json.loads((tmp_path / "weights.jsonl").read_text())
    (tmp_path / "weights.jsonl").write_text(json.dumps({**line, "weights": [9, 9, 1]}) + "\n")
    with pytest.raises(UserError, match="is damaged"):
        loader_of(sources, tmp_path / "weights.jsonl").load_state_dict(state)


def test_states_that_hold_their_changes_go_on_with_a_file(sources: list[Source], tmp_path: Path) -> None:
    loader = loader_of(sources, None)
    take(loader, 1)
    change(loader, 1)
    state = loader.state_dict()
    expected = take(loader, 5)
    other = loader_of(sources, tmp_path / "weights.jsonl")
    other.load_state_dict(state)
    assert take(other, 5) == expected
    change(other, 2)
    third = loader_of(sources, tmp_path / "weights.jsonl")
    third.load_state_dict(other.state_dict())
    assert take(third, 5) == take(other, 5)


def test_only_rank_0_writes(sources: list[Source], tmp_path: Path) -> None:
    loader = loader_of(sources, tmp_path / "weights.jsonl", 1, 2)
    change(loader, 1)
    assert not (tmp_path / "weights.jsonl").exists()


@pytest.mark.slow
def test_two_thousand_changes_of_sixty_sources(tmp_path: Path) -> None:
    names = [f"source-{number}" for number in range(60)]
    mixture = SizedMixture([SizedSource(name=name, size=1000, weight=1) for name in names])
    stream, ledger = MixtureStream(mixture, seed=0, shuffle=True), WeightLedger(tmp_path / "weights.jsonl")
    for number in range(2000):
        weights = {name: 1 + (place + number) % 11 for place, name in enumerate(names)}
        stream = stream.changed(0, 64 * number, weights)
        ledger.add(stream.changes, stream.digests)
    read = WeightLedger(ledger.path).read(stream.digests[1])
    forgetful = [change._replace(drawn=None) for change in read]
    for changes in (read, forgetful):
        restored = stream.with_changes(changes)
        assert restored.schedule(0).counts(200_000) == stream.schedule(0).counts(200_000)
        found = [each.schedule(0).places(np.arange(100_000, 101_000)) for each in (restored, stream)]
        assert np.array_equal(*found)
