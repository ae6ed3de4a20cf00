"""combine --bake: rows of layouts beside the samples, in the manifest, whatever happens.

pytest tests/dataset/test_baking.py
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from pathlib import Path

import pytest

from hpcdata import TokenDataset
from hpcdata import combine as command
from hpcdata.base.errors import UserError
from hpcdata.dataset import verifying as verify
from hpcdata.dataset.baked import adding
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.dataset.manifest import read_manifest
from hpcdata.loading.baking import bakings
from hpcdata.report.status import Observer
from hpcdata.report.summary import describe
from tests import made
from tests.crashes import Crash, crash_at
from tests.trees import tree

T2I, TEXT = "t2i:block_size=8,num_image_tokens=16", "text:max_length=10"


def bake(run: Path, *layouts: str, **options: bool) -> list[str]:
    """The layouts that the dataset has then."""
    manifest = combine(run, CombineOptions(bake=bakings(layouts) if layouts else None, **options))
    assert verify.verify_dataset(run / "dataset").problems == []
    folders = sorted(path.name for path in (run / "dataset").glob("baked/*"))
    assert folders == sorted(baked.folder.split("/")[1] for baked in manifest.baked)
    assert read_manifest(run).baked == manifest.baked
    return [baked.layout for baked in manifest.baked]


def test_the_command_bakes_and_says_what_it_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.run(tmp_path / "run", 20)
    assert command.main([str(tmp_path / "run"), "--compact", "--bake", T2I, "--bake", TEXT]) == 0
    told, rows = capsys.readouterr().out, len(TokenDataset(tmp_path / "run"))
    assert f"baked {T2I}: {rows} rows of 24 columns, " in told
    assert f"baked {TEXT}: {rows} rows of 10 columns, " in told
    assert command.main([str(tmp_path / "run"), "--json"]) == 0
    sizes = json.loads(capsys.readouterr().out)["baked"]
    folders = {baked.layout: tmp_path / "run/dataset" / baked.folder for baked in read_manifest(tmp_path / "run").baked}
    assert sizes == {name: sum(map(len, tree(folder).values())) for name, folder in folders.items()}
    assert describe(Observer(tmp_path / "run").look(ask_scheduler=False), tmp_path).count("\nbaked    ") == 2
    assert command.main([str(tmp_path / "run"), "--bake", "none"]) == 0
    assert "baked" not in capsys.readouterr().out


def test_a_dataset_has_the_layouts_that_were_asked_for_last(tmp_path: Path) -> None:
    made.run(tmp_path / "run", 20)
    before = None
    assert bake(tmp_path / "run", TEXT, T2I, TEXT, compact=True) == [TEXT, T2I]
    for layouts in ((), (TEXT, T2I)):
        before = before or tree(tmp_path / "run")
        assert bake(tmp_path / "run", *layouts) == [TEXT, T2I]
        assert tree(tmp_path / "run") == before, "nothing is made again"
    assert bake(tmp_path / "run", T2I) == [T2I]
    assert bake(tmp_path / "run", "none") == []
    assert "baked" not in read_manifest(tmp_path / "run").extra
    assert bake(tmp_path / "run", T2I, TEXT) == [T2I, TEXT]


def test_bytes_are_those_of_any_other_run_in_one_part_or_in_many(tmp_path: Path) -> None:
    for name, options in (("a", {}), ("b", {"compact": True})):
        made.run(tmp_path / name, 20)
        bake(tmp_path / name, T2I, **options)
    rows = [tree(tmp_path / name / "dataset/baked") for name in "ab"]
    assert len(rows[0]) == 3
    assert rows[1] == rows[0]


def test_what_identifies_the_data_stays(tmp_path: Path) -> None:
    made.run(tmp_path / "run", 20)
    before = combine(tmp_path / "run", CombineOptions(compact=True))
    bake(tmp_path / "run", T2I)
    after = read_manifest(tmp_path / "run")
    assert (after.content_digest, after.fingerprint) == (before.content_digest, before.fingerprint)


def test_a_compact_dataset_whose_shards_are_gone_can_be_baked(tmp_path: Path) -> None:
    made.run(tmp_path / "run", 20)
    combine(tmp_path / "run", CombineOptions(compact=True, delete_after_combining=True))
    assert bake(tmp_path / "run", TEXT, compact=True) == [TEXT]


def test_rows_of_an_older_dataset_are_not_those_of_the_new_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made.run(tmp_path / "run", 20, unfinished={1: 2})
    bake(tmp_path / "run", TEXT, allow_tmp=True)
    made.complete(tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    with caplog.at_level(logging.WARNING):
        assert bake(tmp_path / "run") == []
    assert "without the rows that were baked: --bake makes them again" in caplog.text
    assert bake(tmp_path / "other", TEXT) == [TEXT]
    assert read_manifest(tmp_path / "other").baked[0].samples == len(TokenDataset(tmp_path / "run"))


def test_nothing_is_written_where_a_layout_cannot_be_baked(tmp_path: Path) -> None:
    made.run(tmp_path / "run", 20)
    bake(tmp_path / "run", TEXT)
    before = tree(tmp_path / "run/dataset")
    for asked, why in (("caption:max_length=5", "sample 0 does not fit"), ("text:max_length=2", "need 3")):
        with pytest.raises(UserError, match=why):
            bake(tmp_path / "run", T2I, asked)
        assert tree(tmp_path / "run/dataset") == before
    assert bake(tmp_path / "run", TEXT) == [TEXT]


def test_another_process_that_has_combined_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.run(tmp_path / "run", 20, unfinished={1: 2})
    real = adding._write

    def stalled(*arguments: object) -> object:
        monkeypatch.undo()
        written = real(*arguments)  # type: ignore[arg-type]
        (tmp_path / "run/claims/combine").unlink()
        made.complete(tmp_path / "run")
        combine(tmp_path / "run", CombineOptions())
        return written

    monkeypatch.setattr(adding, "_write", stalled)
    with pytest.raises(UserError, match="another process has combined"):
        combine(tmp_path / "run", CombineOptions(allow_tmp=True, bake=bakings([TEXT])))
    assert read_manifest(tmp_path / "run").counts.missing == 0
    assert bake(tmp_path / "run", TEXT) == [TEXT]


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_step_it_can_be_repeated(tmp_path: Path, after: bool) -> None:
    made.run(tmp_path / "made", num_samples=20)
    combine(tmp_path / "made", CombineOptions(compact=True, delete_after_combining=True))
    shutil.copytree(tmp_path / "made", tmp_path / "whole")
    bake(tmp_path / "whole", T2I, TEXT)
    bake(tmp_path / "made", TEXT, "sft:max_length=60")
    number, finished = 0, False
    while not finished:
        number += 1
        run = Path(shutil.copytree(tmp_path / "made", tmp_path / "run"))
        with crash_at(number, after=after) as counter, contextlib.suppress(Crash):
            combine(run, CombineOptions(bake=bakings([T2I, TEXT])))
        finished = counter.calls < number
        shutil.rmtree(run / "claims")  # a dead process would not be seen as alive
        assert verify.verify_dataset(run / "dataset").problems == []
        assert bake(run, T2I, TEXT) == [T2I, TEXT]
        assert tree(run / "dataset") == tree(tmp_path / "whole/dataset"), f"crash at call {number}"
        shutil.rmtree(run)
    assert number > 20
