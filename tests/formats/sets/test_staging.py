"""The stages of LLaVA-OneVision as mixes.   pytest tests/formats/sets/test_staging.py"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcdata import convert
from hpcdata.base.command import DONE, FAILED, REFUSED
from hpcdata.formats.sets.staging import NAMES, items, write_mix
from hpcdata.order.sampling import check_strategy
from hpcdata.sources import list_inputs
from tests.sources.source_files import write


@pytest.mark.parametrize("stage", NAMES)
def test_each_file_of_a_stage_is_named_once_with_a_part_that_there_is(stage: str) -> None:
    found = items(stage)
    assert len({item.file for item in found}) == len(found)
    for item in found:
        check_strategy(item.take)
        assert item.file.endswith((".json", ".jsonl"))


def test_stages_are_as_their_makers_have_them() -> None:
    assert [len(items(stage)) for stage in NAMES] == [1, 8, 90, 82]
    missing = {item.file for item in items("2-1") if not item.set_name}
    assert missing == {
        *("llava_wild_4v_39k.json", "llava_wild_4v_12k.json", "Evol-Instruct-GPT4-Turbo-143000.json"),
        *("MathV360K_TQA_10181.json", "MathV360K_VQA-AS_5907.json", "MathV360K_VQA-RAD_2130.json"),
    }


def test_a_mix_names_what_lies_below_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for item in items("2-1"):
        if item.set_name:
            write(tmp_path / item.set_name / "a (b, c)+" / item.file, json.dumps([{"text": "t"}]).encode())
    write(tmp_path / "x.run/llavar_gpt4_20k.json", b"[]")
    assert convert.main(["mix", "2-1", str(tmp_path / "mix.yaml")]) == DONE
    found = list_inputs(str(tmp_path / "mix.yaml"), "llava_mix")
    takes = {file.label.partition("@")[0].rpartition("/")[2]: file.take for file in found}
    assert takes == {item.file: item.take for item in items("2-1") if item.set_name}
    assert "not published  llava_wild_4v_39k.json" in capsys.readouterr().out
    assert "# not published: llava_wild_4v_39k.json (all)" in (tmp_path / "mix.yaml").read_text()


def test_what_is_missing_is_said_and_no_mix_is_written_unless_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "ReCap-118K/coco118k_stage1.5_finetune_w_prompt.json", b"[]")
    line = ["mix", "1.5", str(tmp_path / "mix.yaml")]
    assert convert.main(line) == FAILED
    assert "missing        ReCap-CC3M: cc3m_recap_data_prompt_v2.json" in capsys.readouterr().out
    assert not (tmp_path / "mix.yaml").exists()
    assert convert.main([*line, "--write-incomplete"]) == FAILED
    assert len(list_inputs(str(tmp_path / "mix.yaml"), "llava_mix")) == 1
    write(tmp_path / "again/coco118k_stage1.5_finetune_w_prompt.json", b"[]")
    assert convert.main(line) == REFUSED
    assert convert.main(["mix", "3", str(tmp_path / "mix.yaml")]) == REFUSED
    assert not write_mix("1", tmp_path / "one.yaml", writes_incomplete=True).is_written
