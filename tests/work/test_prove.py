"""The proof by re-encoding passes for what is right, and says what is wrong.   pytest tests/work/test_prove.py"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hpcdata import verify as verify_command
from hpcdata.base.digest import sha256_file
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.samples import Example, Kind, Span
from hpcdata.shards import shard
from hpcdata.shards.stored import compare
from hpcdata.work.prove import prove
from tests.smallruns import small_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prove") / "run"
    small_run(folder)
    return folder


def test_a_good_run_is_proved(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_command.main([str(run), "--prove", "10", "--seed", "7"]) == 0
    out = capsys.readouterr().out
    assert "10 of 10 drawn samples" in out
    assert "seed 7" in out
    assert prove(run, 10**9, None).equal == 24


def test_the_same_seed_draws_the_same(run: Path) -> None:
    assert prove(run, 5, 3) == prove(run, 5, 3)
    assert prove(run, 5, None).seed != prove(run, 5, None).seed


@pytest.mark.parametrize("options", [{"move_files": True}, {"compact": True, "move_files": True}])
def test_a_combined_run_is_proved(tmp_path: Path, options: dict[str, bool]) -> None:
    small_run(tmp_path / "run")
    combine(tmp_path / "run", CombineOptions(**options))
    assert prove(tmp_path / "run", 99, 0).equal == 24


@pytest.mark.parametrize("path", ["tokens/ids.memmap", "keys/bytes.memmap", "spans/flags.memmap"])
def test_a_forged_shard_with_right_digests_is_found(
    tmp_path: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small_run(tmp_path / "run")
    folder = tmp_path / "run/shards/00001-of-00004"
    data = bytearray((folder / path).read_bytes())
    data[0] ^= 1
    (folder / path).write_bytes(data)
    summary = shard.read_summary(folder)
    files = {**summary.files, path: sha256_file(folder / path)}
    (folder / shard.SHARD).write_bytes(dataclasses.replace(summary, files=files).to_json())
    assert verify_command.main([str(tmp_path / "run"), "--prove", "99", "--seed", "1"]) == 1
    out = capsys.readouterr().out
    assert "23 of 24" in out
    assert "00001-of-00004" in out


def test_a_changed_input_cannot_be_proved(tmp_path: Path) -> None:
    from hpcdata import embedded

    source = tmp_path / "in.tar"
    source.write_bytes(Path(embedded.path("quickstart.tar")).read_bytes())
    small_run(tmp_path / "run", source=source)
    source.touch()
    proof = prove(tmp_path / "run", 5, 0)
    assert proof.equal == 0
    assert all("has changed since it was planned" in difference for difference in proof.differences)


def _example(*ids: int, key: str = "k", kind: Kind = Kind.TEXT) -> Example:
    return Example(index=0, key=key, spans=(Span(kind=kind, ids=np.array(ids, np.uint16)),))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (_example(1, 2, 3), ""),
        (_example(1, 2, 4), "span 0 (text): 1 of 3 ids differ, first at 2: stored 3, encoded 4"),
        (_example(1, 2), "span 0 (text): stored 3 ids, grid 0 x 0, flags 8, encoded 2 ids, grid 0 x 0, flags 8"),
        (_example(1, 2, 3, kind=Kind.IMAGE), "stored spans are text, encoded image"),
        (_example(1, 2, 3, key="j"), "its key is j now"),
    ],
)
def test_differences_in_words(other: Example, message: str) -> None:
    assert compare(_example(1, 2, 3), other) == message


@pytest.mark.parametrize("number", ["0", "-3"])
def test_nothing_to_prove(run: Path, number: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_command.main([str(run), "--prove", number]) == 2
    assert "nothing to prove" in capsys.readouterr().err
