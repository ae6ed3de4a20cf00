"""python -m pytest tests/loading/test_replaying.py"""

import json

import numpy as np
import pytest
import torch

from hpcdata import Mixture, Source, TokenLoader, WeightsFrom, select
from hpcdata.loading.layouts.named import T2I, Caption
from hpcdata.loading.replaying import batch_digest
from hpcdata.order.packing import Buckets
from hpcdata.replay import main
from tests.loading import made

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return made.make_dataset(tmp_path_factory.mktemp("made"), made.split(made.pairs(60)))


def run(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return status, output.out.splitlines(), output.err


def test_a_resumed_run_saw_what_it_should_have(dataset, tmp_path, capsys):
    """Trained on two ranks, saved after step 1, gone on with one rank: replay prints what both were fed."""
    ranks = [TokenLoader(dataset, global_batch_size=8, seed=3, rank=rank, world_size=2) for rank in (0, 1)]
    before = [[next(iter(loader)) for loader in ranks] for _ in range(2)]
    (tmp_path / "state.json").write_text(json.dumps(ranks[0].state_dict()))
    single = TokenLoader(dataset, global_batch_size=8, seed=3, rank=0, world_size=1)
    single.load_state_dict(ranks[0].state_dict())
    after = [next(iter(single)) for _ in range(3)]

    status, lines, _ = run(capsys, dataset, "--state", tmp_path / "state.json", "--steps", "0:5", "--world-size", 2)
    assert status == 0
    wholes = [line.split()[-1] for line in lines if "global" in line]
    assert wholes == [*map(batch_digest, before), *(batch_digest([batch]) for batch in after)]
    of_rank_1 = [line.split()[-1] for line in lines if "rank 1 of 2" in line]
    assert of_rank_1[:2] == [batch_digest([shares[1]]) for shares in before]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_global_digests_are_the_same_for_every_world_size(dataset, capsys, world_size):
    arguments = (dataset, "--global-batch-size", 8, "--seed", 5, "--world-size", world_size, "--steps", "2:")
    status, lines, _ = run(capsys, *arguments)
    assert status == 0
    loader = TokenLoader(dataset, global_batch_size=8, seed=5)
    expected = [batch_digest([loader.batch_at(0, step)]) for step in range(2, 7)]
    assert [line.split()[-1] for line in lines if "global" in line] == expected
    assert len(lines) == 5 * (1 + (world_size if world_size > 1 else 0))


def test_states_of_torch_and_layout_options(dataset, tmp_path, capsys):
    loader = TokenLoader(dataset, global_batch_size=8, layout=T2I(block_size=9), shuffle=False)
    next(iter(loader))
    torch.save({"model": torch.zeros(2), "loader": loader.state_dict()}, tmp_path / "checkpoint.pt")
    arguments = (dataset, "--state", tmp_path / "checkpoint.pt", "--steps", "1")
    status, _, error = run(capsys, *arguments)
    assert (status, "layout_digest" in error) == (2, True)
    status, lines, _ = run(capsys, *arguments, "--layout-options", '{"block_size": 9}')
    assert status == 0
    assert lines == [f"epoch 0 step 1 first_index 24 global {batch_digest([next(iter(loader))])}"]


@pytest.mark.parametrize(
    "options",
    [{"packing": 60}, {"packing": Buckets(multiple=8, window=32)}, {"order": "blocks:4x2"}, {"drop_last": False}],
)
def test_packing_and_order_are_in_the_state(dataset, tmp_path, capsys, options):
    loader = TokenLoader(dataset, global_batch_size=4, layout=Caption(max_length=60), seed=3, **options)
    digests = [batch_digest([next(iter(loader))]) for _ in range(5)]
    (tmp_path / "state.json").write_text(json.dumps(loader.state_dict()))
    arguments = (
        dataset,
        "--state",
        tmp_path / "state.json",
        "--steps",
        "0:5",
        "--layout-options",
        '{"max_length": 60}',
    )
    status, lines, error = run(capsys, *arguments)
    assert (status, [line.split()[-1] for line in lines]) == (0, digests), error


def test_a_mixture_whose_weights_were_changed(dataset, tmp_path, capsys):
    sources = [{"dataset": str(dataset), "name": "a", "weight": 1}]
    sources.append({"dataset": str(dataset), "name": "b", "weight": 2, "sampling": "random:50%"})
    (tmp_path / "mixture.json").write_text(json.dumps({"sources": sources, "policy": "repeat"}))
    loader = TokenLoader(Mixture([Source(**source) for source in sources]), global_batch_size=4)
    digests = [batch_digest([next(iter(loader))]) for _ in range(5)]
    loader.set_weights({"a": 0, "b": 1})
    digests += [batch_digest([next(iter(loader))]) for _ in range(5)]
    (tmp_path / "state.json").write_text(json.dumps(loader.state_dict()))
    arguments = (tmp_path / "mixture.json", "--state", tmp_path / "state.json", "--steps", "0:10")
    status, lines, error = run(capsys, *arguments)
    assert (status, [line.split()[-1] for line in lines]) == (0, digests), error
    (tmp_path / "other.json").write_text('{"policy": "repeat"}')
    status, _, error = run(capsys, tmp_path / "other.json", *arguments[1:])
    assert (status, "is no mixture" in error) == (2, True)


def test_selections_schedules_and_ledgers_of_weights(dataset, tmp_path, capsys):
    """And the account, which says what a selection left out: of each source, and of all."""
    good = select(dataset, lambda columns: columns["text_tokens"] % 2 == 0)
    np.save(tmp_path / "good.npy", good.rows)
    schedule = [WeightsFrom({"good": 1, "all": 3}, samples=8), WeightsFrom({"good": 1, "all": 1}, samples=24)]
    mixture = Mixture(
        [Source(dataset=good, name="good", weight=1), Source(dataset=dataset, name="all", weight=1)], schedule=schedule
    )
    ledger = tmp_path / "weights.jsonl"
    loader = TokenLoader(mixture, global_batch_size=4, weights_ledger=ledger)
    digests = [batch_digest([next(iter(loader))]) for _ in range(8)]
    loader.set_weights({"good": 0, "all": 1})
    digests += [batch_digest([next(iter(loader))]) for _ in range(4)]
    (tmp_path / "state.json").write_text(json.dumps(loader.state_dict()))
    sources = [{"dataset": str(dataset), "name": "good", "weight": 1, "rows": str(tmp_path / "good.npy")}]
    sources.append({"dataset": str(dataset), "name": "all", "weight": 1})
    declared = [{"weights": item.weights, "samples": item.samples} for item in schedule]
    (tmp_path / "mixture.json").write_text(json.dumps({"sources": sources, "schedule": declared}))
    arguments = (tmp_path / "mixture.json", "--state", tmp_path / "state.json", "--weights-ledger", ledger)
    status, lines, error = run(capsys, *arguments, "--steps", "0:12")
    assert (status, [line.split()[-1] for line in lines]) == (0, digests), error

    status, lines, error = run(capsys, *arguments, "--account", "--json")
    found, left_out = json.loads("".join(lines)), 60 - len(good)
    assert (status, list(found)) == (0, ["source good", "source all", "total"]), error
    assert [found[name]["left_out_samples"] for name in found] == [left_out, 0, left_out]
    assert [found[name]["samples"] for name in found] == [
        loader.account()["good"].samples,
        loader.account()["all"].samples,
        48,
    ]
    assert f"left_out_samples {left_out}" in run(capsys, *arguments, "--account")[1][-1]


def test_a_selection_by_itself(dataset, tmp_path, capsys):
    loader = TokenLoader(select(dataset, lambda columns: columns["index"] % 2 == 0), global_batch_size=4)
    np.save(tmp_path / "rows.npy", loader.dataset.rows)
    (tmp_path / "good.json").write_text(json.dumps({"dataset": str(dataset), "rows": str(tmp_path / "rows.npy")}))
    digest = batch_digest([next(iter(loader))])
    (tmp_path / "state.json").write_text(json.dumps(loader.state_dict()))
    arguments = (tmp_path / "good.json", "--state", tmp_path / "state.json", "--steps", "0")
    status, lines, error = run(capsys, *arguments)
    assert (status, lines[0].split()[-1]) == (0, digest), error
    for rows, message in (([3, 2], "no ascending integers"), ([2, 60], "rows 2 to 60 of 60"), ([0.5], "no ascending")):
        np.save(tmp_path / "rows.npy", rows)
        status, _, error = run(capsys, *arguments)
        assert (status, message in error) == (2, True), error


@pytest.mark.parametrize("packing", ["__import__('os').getcwd()", "BestFit(length=open('x'))", "Other(length=3)", "("])
def test_a_packing_that_is_none_is_not_evaluated(dataset, tmp_path, capsys, packing):
    state = TokenLoader(dataset, global_batch_size=4).state_dict()
    (tmp_path / "state.json").write_text(json.dumps({**state, "settings": {**state["settings"], "packing": packing}}))
    status, _, error = run(capsys, dataset, "--state", tmp_path / "state.json")
    assert (status, "replay it from Python" in error) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0:1"], "pass --global-batch-size"),
        (["--global-batch-size", 8, "--steps", "5:99"], "5:99 of an epoch of 7 steps"),
        (["--global-batch-size", 8, "--steps", "x"], "expected A:B"),
        (["--global-batch-size", 8, "--layout-options", "["], "not JSON"),
        (["--state", "/nowhere/state.json"], "does not exist"),
    ],
)
def test_mistakes_are_explained(dataset, capsys, arguments, message):
    status, _, error = run(capsys, dataset, *arguments)
    assert status == 2
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("content", [b"{}", b'{"step": 1}', b"{", b"\x80\x04cos\nsystem\n"])
def test_files_that_are_no_states(dataset, tmp_path, capsys, content):
    (tmp_path / "state").write_bytes(content)
    status, _, error = run(capsys, dataset, "--state", tmp_path / "state")
    assert status == 2
    assert str(tmp_path / "state") in error
