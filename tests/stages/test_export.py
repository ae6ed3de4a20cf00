"""The stage `export`: the same bytes whatever happens, its account, what it refuses.

pytest tests/stages/test_export.py
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from hpcdata import combine as combine_command
from hpcdata import export as command
from hpcdata.base.errors import UserError
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.dataset.verifying import verify
from hpcdata.formats.target import problems_of, read_target
from hpcdata.formats.tokens import NAMES
from hpcdata.formats.tokens.options import OPTIONS
from hpcdata.runs.plan import load_plan
from hpcdata.runs.planning import prepare
from hpcdata.runs.rejects import rows_of
from hpcdata.samples import Example
from hpcdata.work.prove import prove
from hpcdata.work.task import TaskOutcome, run_task
from tests.formats.tokens.exports import config, dataset, export, mixed
from tests.loading import made
from tests.smallruns import StopAfter
from tests.trees import tree


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("source") / "data")


def finish(folder: Path) -> None:
    assert run_task(folder, StopAfter(None)) == TaskOutcome.FINISHED
    combine(folder, CombineOptions())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "liquid"])  # of kept texts: tests/test_kills.py
def test_a_run_that_was_stopped_at_every_batch_makes_the_same_folder(source: Path, tmp_path: Path, name: str) -> None:
    export(source, tmp_path / "whole", name)
    prepare(config(source, tmp_path / "out", name, "data.save_tmp_interval=0.000001"))
    stops = 0
    while run_task(tmp_path / "out.run", StopAfter(2)) != TaskOutcome.FINISHED:
        stops += 1
    assert stops > 2
    combine(tmp_path / "out.run", CombineOptions())
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["megatron", "mds", "jsonl"])
def test_verify_and_prove_know_an_export(source: Path, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    prepare(config(source, tmp_path / "out", name, f"data.token_output_dir={run}"))
    finish(run)
    assert [report.problems for report in verify(run)] == [[], []]
    proof = prove(run, 20, 0)
    assert (proof.equal, proof.differences) == (20, [])
    assert problems_of(tmp_path / "out") == []
    (damaged,) = (tmp_path / "out").glob(
        "*.bin" if name == "megatron" else "shard.00000.mds" if name == "mds" else "00000*"
    )
    with open(damaged, "r+b") as file:
        file.seek(40)
        file.write(b"\xff\xff")
    assert len(problems_of(tmp_path / "out")) == 1
    assert any(report.problems for report in verify(run))  # the same file


@pytest.mark.slow
def test_a_seed_draws_the_order_and_another_one_another(source: Path, tmp_path: Path) -> None:
    orders = []
    for seed in ("null", "1", "2"):
        out = tmp_path / seed
        export(source, out, "jsonl", "export.style=spans", f"export.shuffle_seed={seed}")
        lines = [json.loads(line) for path in sorted(out.glob("*.jsonl")) for line in path.read_text().splitlines()]
        orders.append([line["key"] for line in lines])
    keys = [example.key for example in mixed()]
    assert orders[0] == keys
    assert orders[1] != keys != orders[2] != orders[1]
    assert sorted(orders[1]) == sorted(orders[2]) == sorted(keys)


def test_rows_that_a_format_has_no_place_for_are_rejects_by_reason(tmp_path: Path) -> None:
    examples = [Example(index=n, key=f"k{n}", spans=(made.text(*range(n % 3)),)) for n in range(9)]
    source = dataset(tmp_path / "data", examples, image=None)
    for name in ("mds", "litdata"):
        passed = export(source, tmp_path / name, name, f"data.token_output_dir={tmp_path}/run-{name}")
        assert passed.target is not None
        assert dict(passed.counts.rejected) == {"empty_sequence": 3}
        assert read_target(tmp_path / name).counts.written == 6
        lines = [json.loads(line) for line in (tmp_path / name / "left_out.jsonl").read_text().splitlines()]
        assert [line["key"] for line in lines] == ["k0", "k3", "k6"]
    prepare(config(source, tmp_path / "x", "mds", f"data.token_output_dir={tmp_path}/run"))
    assert run_task(tmp_path / "run", StopAfter(None)) == TaskOutcome.FINISHED
    assert [(row.key, row.reason) for row in rows_of(tmp_path / "run")] == [
        (f"k{n}", "empty_sequence") for n in (0, 3, 6)
    ]


def test_a_row_of_two_pictures_has_no_place_in_liquids_lines(tmp_path: Path) -> None:
    source = dataset(tmp_path / "data", config={"text": {"keep_raw": True}})
    passed = export(source, tmp_path / "out", "jsonl", "export.style=liquid")
    assert passed.target is not None
    assert dict(passed.counts.rejected) == {"too_many_images": 1}
    (first, *_) = (tmp_path / "out/00000-of-00003.jsonl").read_text().splitlines()
    assert json.loads(first) == {"data_type": "image_text", "text": "", "vq_code": [0] * 16}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("export.format=tfrecord",), "expected one of megatron, mds"),
        (("export.format=mds", "export.modes=true"), "export.modes means nothing for format mds"),
        (("export.format=mds", "export.columns=[input_ids,depth]"), "export.columns has depth"),
        (("export.format=hf", "export.columns=[text]"), "text.keep_raw=true"),
        (("export.format=jsonl", "export.style=liquid"), "text.keep_raw=true"),
        (("export.format=jsonl", "export.style=spans", "export.eod=eos"), "export.eod means nothing for style spans"),
        (("export.format=megatron", "export.image_shift=70000", "export.dtype=uint16"), "ids reach 86383"),
        (("export.format=megatron", "export.eod=-1"), "expected an id from 0 on"),
        (("export.format=litdata", "export.block_size=4", "export.eod=none"), "needs export.eod"),
        (("export.format=mds", "data.on_changed_input=reject"), "on_changed_input"),
        (("stage=tokenize", "text.tokenizer=embedded", "image.tokenizer=none"), "read by stage=export alone"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(
    source: Path, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        export(source, tmp_path / "out", "mds", "data.source=dataset", *overrides)
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_without_pictures_has_no_shift(tmp_path: Path) -> None:
    examples = [Example(index=n, key=f"k{n}", spans=(made.text(*range(1, 5)),)) for n in range(9)]
    source = dataset(tmp_path / "data", examples, image=None)
    with pytest.raises(UserError, match="has no pictures"):
        export(source, tmp_path / "out", "mds", "export.image_shift=9")
    export(source, tmp_path / "out", "mds")
    assert read_target(tmp_path / "out").facts["image_token_shift"] is None


def test_a_dataset_that_changed_is_refused_by_name(tmp_path: Path) -> None:
    source = dataset(tmp_path / "data")
    prepare(config(source, tmp_path / "out", "mds"))
    run_task(tmp_path / "out.run", StopAfter(2))
    shutil.rmtree(source)
    dataset(tmp_path / "data", mixed()[:30])
    with pytest.raises(UserError, match=r"export.source was \w+, now"):
        prepare(config(source, tmp_path / "out", "mds"))
    with pytest.raises(UserError, match="another dataset than the one that was planned"):
        run_task(tmp_path / "out.run", StopAfter(None))


def test_the_command_makes_the_folder_and_leaves_no_run(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "GeoQA+(MathV360K),[x]"
    line = [str(source), str(out), "--format", "mds", "--columns", "input_ids,key", "--shuffle-seed", "5"]
    assert command.main([*line, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["target"], values["counts"]["written"]) == ("mds", len(mixed()))
    assert read_target(out).options["columns"] == ["input_ids", "key"]
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    before = tree(out)
    assert command.main(line) == 0  # finds it
    assert "62 written" in capsys.readouterr().out.replace(str(len(mixed())), "62")
    assert tree(out) == before
    assert command.main([*line, "export.file_bytes=100"]) == 2
    assert "holds another export" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_relative_name_and_a_run_that_is_kept(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.symlink(source, tmp_path / "data")
    assert command.main(["data", "out", "--format", "hf", "--run", "work"]) == 0
    assert load_plan(tmp_path / "work").config.export.format == "hf"
    assert combine_command.main(["work"]) == 0  # finds it
    assert problems_of(tmp_path / "out") == []


def test_options_of_other_formats_are_refused(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(source), f"{tmp_path}/out", "--format", "mds", "--modes"]) == 2
    assert "--modes is no option of --format mds" in capsys.readouterr().err
    assert command.main([str(source), f"{tmp_path}/out", "--format", "webdataset"]) == 2
    assert "holds tokens" in capsys.readouterr().err
    assert tuple(OPTIONS) == NAMES


def test_an_option_that_is_0_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They were left out, as if nobody had said them: codes were shifted all the same, and rows not shuffled."""
    zeros = ("--image-shift=0", "--image-begin=0", "--image-end=0", "--shuffle-seed=0")
    line = [str(dataset(tmp_path / "in")), f"{tmp_path}/out", "--format=mds", *zeros]
    assert command.main(line) == 0
    made = read_target(tmp_path / "out")
    names = ("image_token_shift", "image_begin_id", "image_end_id", "shuffle_seed")
    assert [made.facts[name] for name in names] == [0, 0, 0, 0]
    assert command.main([*line, "--file-bytes=0"]) == 2
    assert "export.file_bytes=0: expected a number above 0" in capsys.readouterr().err
