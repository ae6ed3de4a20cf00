"""python -m pytest tests/test_replay.py"""

import json

import pytest
import torch

from hpcdata import TokenLoader
from hpcdata.loading.layout import T2I
from hpcdata.replay import batch_digest, main
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
    assert (status, "layout_digest" in error) == (1, True)
    status, lines, _ = run(capsys, *arguments, "--layout-options", '{"block_size": 9}')
    assert status == 0
    assert lines == [f"epoch 0 step 1 first_index 24 global {batch_digest([next(iter(loader))])}"]


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
    assert status == 1
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("content", [b"{}", b'{"step": 1}', b"{", b"\x80\x04cos\nsystem\n"])
def test_files_that_are_no_states(dataset, tmp_path, capsys, content):
    (tmp_path / "state").write_bytes(content)
    status, _, error = run(capsys, dataset, "--state", tmp_path / "state")
    assert status == 1
    assert str(tmp_path / "state") in error
