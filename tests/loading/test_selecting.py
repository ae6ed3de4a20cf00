"""Parts of datasets, by what samples are and by tables of scores.

pytest tests/loading/test_selecting.py
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv, parquet

from hpcdata import Mixture, Source, TokenDataset, TokenLoader, select
from hpcdata.base.errors import UserError
from hpcdata.loading import selecting
from hpcdata.loading.layouts.named import Text
from hpcdata.loading.selecting import Columns
from hpcdata.samples import Kind
from tests.loading import made
from tests.selection import examples

LAYOUT = Text(max_length=24)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> TokenDataset:
    return TokenDataset(made.make_dataset(tmp_path_factory.mktemp("made"), made.split(made.pairs(60))))


def table_of(dataset: TokenDataset, rows: range) -> pa.Table:
    """A score for each of some samples, in another order: that of its row, and none for every tenth."""
    order = np.random.default_rng(0).permutation(len(rows))
    scores = [None if row % 10 == 0 else row / 60 for row in rows]
    columns = {"key": [dataset[row].key for row in rows], "score": scores, "tier": [f"tier {row % 3}" for row in rows]}
    return pa.table({name: [values[at] for at in order] for name, values in columns.items()})


def indices(dataset: TokenDataset) -> list[int]:
    return [example.index for example in dataset]


def test_columns_are_those_of_the_samples(dataset: TokenDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selecting, "_ROWS_AT_A_TIME", 7)
    seen: list[Columns] = []
    select(dataset, lambda columns: seen.append(columns) or np.ones(len(columns["index"]), bool))
    found = {name: np.concatenate([columns[name] for columns in seen]).tolist() for name in selecting.OWN}
    for row, example in enumerate(dataset):
        lengths = {kind: [len(span.ids) for span in example.spans if span.kind == kind] for kind in Kind}
        texts, images = lengths[Kind.TEXT], lengths[Kind.IMAGE]
        assert [found[name][row] for name in selecting.OWN] == [
            *(example.index, sum(texts) + sum(images), sum(texts), sum(images), len(texts), len(images)),
        ]


@settings(max_examples=examples(25), deadline=None)
@given(st.lists(st.integers(0, 59), min_size=8, unique=True), st.integers(0, 5), st.integers(1, 2))
def test_a_selection_is_a_dataset_of_these_samples(
    dataset: TokenDataset, rows: list[int], seed: int, world_size: int
) -> None:
    """As a loader, on all ranks, resumed in the middle, and in block order: each chosen sample once an epoch."""
    wanted = [dataset[row].index for row in sorted(rows)]
    chosen = select(dataset, lambda columns: np.isin(columns["index"], wanted))
    assert indices(chosen) == wanted
    assert chosen.left_out == {"not in the table": 0, "by the predicate": 60 - len(wanted)}
    assert chosen.num_tokens == sum(len(span.ids) for example in chosen for span in example.spans)
    for order in (None, "blocks:4x2"):
        options = {"global_batch_size": 2, "layout": LAYOUT, "seed": seed, "order": order}
        ranks = range(world_size)
        loaders = [TokenLoader(chosen, **options, rank=rank, world_size=world_size) for rank in ranks]
        steps = loaders[0].steps_per_epoch
        first = [next(iter(loader))["index"].tolist() for loader in loaders]
        again = TokenLoader(pickle.loads(pickle.dumps(chosen)), **options)
        again.load_state_dict(loaders[0].state_dict())
        rest = [next(iter(again))["index"].tolist() for _ in range(steps - 1)]
        delivered = [index for batch in (*first, *rest) for index in batch]
        assert len(delivered) == len(set(delivered)) == len(wanted) // 2 * 2
        assert set(delivered) <= set(wanted)


def test_a_state_belongs_to_its_selection(dataset: TokenDataset) -> None:
    few, others = (select(dataset, lambda columns, at=at: columns["index"] % 2 == at) for at in range(2))
    state = TokenLoader(few, global_batch_size=4, layout=LAYOUT).state_dict()
    for other in (others, dataset):
        with pytest.raises(UserError, match="of other data"):
            TokenLoader(other, global_batch_size=4, layout=LAYOUT).load_state_dict(state)
    again = select(dataset, lambda columns: columns["index"] % 2 == 0)
    TokenLoader(again, global_batch_size=4, layout=LAYOUT).load_state_dict(state)


@pytest.mark.parametrize("form", ["memory", "parquet", "folder", "csv", "arrow", "jsonl"])
def test_a_table_is_joined_by_key(dataset: TokenDataset, tmp_path: Path, form: str) -> None:
    table: pa.Table | Path = table_of(dataset, range(50))
    path = tmp_path / f"scores.{form}"
    if form == "parquet":
        parquet.write_table(table, path)
    elif form == "folder":
        path.mkdir()
        for part in range(2):
            parquet.write_table(table.slice(25 * part, 25), path / f"{part}.parquet")
    elif form == "csv":
        csv.write_csv(table, path)
    elif form == "arrow":
        pa.feather.write_feather(table, path)
    elif form == "jsonl":
        path.write_text("".join(f"{row}\n".replace("'", '"').replace("None", "null") for row in table.to_pylist()))
    chosen = select(dataset, lambda columns: columns["score"] > 0.5, table=table if form == "memory" else path)
    assert indices(chosen) == [dataset[row].index for row in range(31, 50) if row % 10]
    assert chosen.left_out == {"not in the table": 10, "by the predicate": 32}
    assert "10 left out: not in the table" in repr(chosen)
    better = select(chosen, lambda columns: columns["tier"] == "tier 1", table=table)
    assert indices(better) == [dataset[row].index for row in range(31, 50) if row % 10 and row % 3 == 1]
    assert better.left_out["not in the table"] == 10


def test_tiers_are_sources_of_a_mixture(dataset: TokenDataset, tmp_path: Path) -> None:
    """Each sample of each tier once, none of what was left out; a whole dataset beside them."""
    tiers = [
        Source(dataset=select(dataset, lambda columns, of=of: columns["index"] % 9 == of), name=str(of), weight=1 + of)
        for of in (0, 3)
    ]
    whole = TokenDataset(made.make_dataset(tmp_path / "other", made.split(made.pairs(20, seed=3))))
    mixture = Mixture([tiers[0], Source(dataset=whole, name="whole", weight=1), tiers[1]], policy="max_repeats")
    loader = TokenLoader(mixture, global_batch_size=1, layout=LAYOUT, num_epochs=1)
    found: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for batch in loader:
        found[int(batch["source"][0])] += batch["index"].tolist()
    assert sorted(found[0]) == [index for index in indices(dataset) if index % 9 == 0]
    assert sorted(found[1]) == sorted(indices(whole))
    assert sorted(found[2]) == [index for index in indices(dataset) if index % 9 == 3]
    by_tokens = Mixture([tiers[0], tiers[1]], strategy="tokens")
    means = [
        sum(len(span.ids) for example in each.dataset for span in example.spans) / len(each.dataset) for each in tiers
    ]
    assert by_tokens.weights[0] * means[0] * 4 == pytest.approx(by_tokens.weights[1] * means[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"predicate": lambda columns: columns["tokens"] < 0}, "no sample"),
        ({"predicate": lambda columns: columns["tokens"]}, "expected 60 booleans"),
        ({"table": "nowhere.parquet"}, "nowhere.parquet does not exist"),
        ({"table": pa.table({"id": ["a"]})}, "no column 'key', it has id"),
        ({"table": pa.table({"key": ["a", "b", "a"]})}, "the key 'a' 2 times"),
        ({"table": pa.table({"key": ["a"], "tokens": [1]})}, "a column 'tokens'"),
    ],
)
def test_selections_that_cannot_be(dataset: TokenDataset, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        select(dataset, **{"predicate": lambda columns: columns["index"] >= 0, **options})


def test_a_file_that_is_no_table_is_named(dataset: TokenDataset, tmp_path: Path) -> None:
    (tmp_path / "scores.parquet").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"scores\.parquet is no Parquet"):
        select(dataset, lambda columns: columns["index"] >= 0, table=tmp_path / "scores.parquet")
