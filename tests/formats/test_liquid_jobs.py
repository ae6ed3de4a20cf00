"""The commands of Liquid's document on data, as written but for the script's path.

pytest tests/formats/test_liquid_jobs.py

Pictures are real ones of tuxpaint. The image tokenizer has Chameleon's layout and is narrow; its codes are made once
more by the independent network of the tests.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import zstandard
from PIL import Image

from hpcdata.config.compose import compose
from hpcdata.encoders.image import presets
from hpcdata.encoders.image.presets import VqganArchitecture
from hpcdata.report.status import read_status
from tests import corpora
from tests.formats.tokens.liquid_reader import collate, read

JOBS = Path(__file__).parent.parent.parent / "jobs"
NARROW = VqganArchitecture(
    codebook_size=8192,
    embed_dim=8,
    lookup="euclidean",
    lowest_attention=False,
    base_channels=32,
    channel_multipliers=(1, 1, 1, 1, 1),
    num_res_blocks=1,
    latent_channels=32,
)
needs_pictures = pytest.mark.skipif(not corpora.available("tuxpaint"), reason="tuxpaint-stamps is not installed")


def as_liquid_prepares(data: bytes) -> np.ndarray | None:
    """What Liquid's script gives the tokenizer, with Pillow alone; None of a picture that it drops."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    if max(image.size) / min(image.size) > 2:
        return None
    factor = min(image.size) / 512
    image = image.resize((int(image.width / factor), int(image.height / factor)), Image.Resampling.LANCZOS)
    left, top = (image.width - 512) // 2, (image.height - 512) // 2
    return np.asarray(image.crop((left, top, left + 512, top + 512)))


def weights(path: Path, arch: VqganArchitecture) -> dict:
    import torch

    from tests.encoders.image.vqgan_reference import random_weights

    made = random_weights(arch, "taming")
    torch.save({"state_dict": {**made, "loss.discriminator.main.0.weight": torch.zeros(3)}}, path)
    return made


def pictures(number: int) -> list[corpora.Pair]:
    """Real ones, every other one in a shape beyond the limit where there are some."""
    small = [pair for pair in corpora.pairs("tuxpaint") if corpora.num_pixels(pair.image) < 300_000]
    return small[:: len(small) // number][:number]


def write_pairs(path: Path, pairs: list[corpora.Pair]) -> None:
    """`image_path` absolute or from the folder of the file; the text under both of the names that Liquid uses."""
    lines = []
    for number, pair in enumerate(pairs):
        shown = str(pair.image)
        if number % 2:
            shown = f"{number}.png"
            (path.parent / shown).write_bytes(pair.image.read_bytes())
        lines.append(json.dumps({"image_path": shown, ("text_prompt", "text")[number % 2]: pair.caption}))
    path.write_text("\n".join(lines) + "\n", "utf-8")


def call(script: str, *arguments: object) -> int:
    return importlib.import_module(f"jobs.{script}").main([*map(str, arguments)])


@needs_pictures
@pytest.mark.slow
def test_codes_of_real_pictures_are_those_of_liquids_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.encoders.image.vqgan_reference import Reference

    monkeypatch.setitem(presets.PRESETS, "chameleon", presets.Preset(architecture=NARROW, file="vqgan.ckpt"))
    (tmp_path / "tokenizer").mkdir()
    reference = Reference(weights(tmp_path / "tokenizer/vqgan.ckpt", NARROW), NARROW, "taming")
    pairs = pictures(7)
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    paths = ("--temp_path", tmp_path / "temp", "--save_path", tmp_path / "out")
    assert call("packing_imagepairs", *paths) == 2  # there is nothing yet
    line = ("--input_pair", tmp_path / "pairs.jsonl", *paths, "--vqgan_path", tmp_path / "tokenizer")
    assert call("convert_imagepair_cc512", *line, "data.max_rejected=1", "data.shard_size=3") == 0
    assert call("packing_imagepairs", *paths) == 0
    expected = {}
    for pair in pairs:
        if (pixels := as_liquid_prepares(pair.image.read_bytes())) is not None:
            expected[pair.caption] = reference.encode(pixels[None])[0].ravel().tolist()
    rows = {row["text"]: json.loads(row["vqcode_512"]) for row in read(str(tmp_path / "out"))}
    assert rows == expected
    assert len(rows) >= 4
    assert read_status(tmp_path / "temp").counts["rejected"].get("aspect_ratio", 0) == len(pairs) - len(rows)


@needs_pictures
@pytest.mark.slow
def test_the_commands_for_pairs_run_as_the_document_has_them(tmp_path: Path, narrow: dict[str, str]) -> None:
    pairs = [pair for pair in pictures(12) if as_liquid_prepares(pair.image.read_bytes()) is not None][:2]
    save = tmp_path / "path/to/save"
    save.mkdir(parents=True)
    write_pairs(save / "jsonl", pairs)
    line = f"{JOBS}/convert_imagepair_cc512.py --input_pair {save}/jsonl --temp_path {save}/tempdata"
    line += f" --save_path {save}/hfdata --vqgan_path {narrow['VQGAN_PATH']}"
    run([sys.executable, *line.split(), "--num_chunks", "2", "--chunk_idx", "1"], narrow)
    run([sys.executable, *line.split()], narrow)  # all is there: nothing to do
    run(
        [sys.executable, *f"{JOBS}/packing_imagepairs.py --temp_path {save}/tempdata --save_path {save}/hfdata".split()]
    )
    rows = [collate(row) for row in read(f"{save}/hfdata")]
    assert sorted(row["text"] for row in rows) == sorted(pair.caption for pair in pairs)
    assert {len(row["codes"]) for row in rows} == {1024}


@needs_pictures
@pytest.mark.slow
def test_the_script_for_several_gpus_runs_and_says_what_it_lacks(tmp_path: Path, narrow: dict[str, str]) -> None:
    pairs = [pair for pair in pictures(12) if as_liquid_prepares(pair.image.read_bytes()) is not None][:2]
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    places = {"INPUT_PAIR": "pairs.jsonl", "TEMP_PATH": "temp", "SAVE_PATH": "out", "NUM_GPUS": "2"}
    script = ["bash", str(JOBS / "extract_vqcodes.sh")]
    told = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode != 0
    assert "INPUT_PAIR: is not set: JSON lines with image_path and text_prompt" in told.stderr
    run([*script, "data.shard_size=1"], {**narrow, **places}, tmp_path)
    assert len(list((tmp_path / "temp/logs").glob("local_*"))) == 2
    assert len(read(str(tmp_path / "out"))) == 2
    run([*script, "data.shard_size=1"], {**narrow, **places}, tmp_path)  # all is there: nothing to do
    run([*script, "data.shard_size=1"], {**narrow, **places, "ARRAY": "0-3"}, tmp_path)  # as after an array's end
    write_pairs(tmp_path / "others.jsonl", pairs[:1])
    env = {**os.environ, **narrow, **places, "HPCDATA_PYTHON": sys.executable, "INPUT_PAIR": "others.jsonl"}
    line = [*script, "data.shard_size=1"]
    told = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "input others.jsonl is new" in told.stderr


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_the_script_for_several_gpus_says_how_it_is_used(word: str) -> None:
    told = subprocess.run(["bash", JOBS / "extract_vqcodes.sh", word], capture_output=True, text=True, check=True)
    assert "  INPUT_PAIR=pairs.jsonl TEMP_PATH=temp SAVE_PATH=out VQGAN_PATH=vqgan.ckpt bash" in told.stdout
    assert "set -e" not in told.stdout


def test_the_script_runs_where_nothing_tells_of_gpus(tmp_path: Path) -> None:
    line = "INPUT_PAIR=none TEMP_PATH=temp SAVE_PATH=out VQGAN_PATH=none"
    places = dict(item.split("=") for item in line.split())
    env = {**os.environ, **places, "HPCDATA_PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}
    env.pop("NUM_GPUS", None)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 127\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    env["PATH"] = f"{tmp_path}:{env['PATH']}"
    script = ["bash", JOBS / "extract_vqcodes.sh"]
    told = subprocess.run(script, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert "none is not a file, check image.checkpoint" in told.stderr


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of processes to which the narrow network is Chameleon's, and its weights."""
    folder = tmp_path_factory.mktemp("narrow")
    weights(folder / "vqgan.ckpt", NARROW)
    (folder / "sitecustomize.py").write_text(
        "from hpcdata.encoders.image.presets import PRESETS, Preset, VqganArchitecture\n"
        f"PRESETS['chameleon'] = Preset(architecture={NARROW}, file='vqgan.ckpt')\n"
    )
    return {"PYTHONPATH": str(folder), "VQGAN_PATH": str(folder / "vqgan.ckpt")}


def run(command: list[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
    where = {**os.environ, "HPCDATA_PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "-1", **(environment or {})}
    told = subprocess.run(command, cwd=cwd, env=where, capture_output=True, text=True, timeout=500, check=False)
    assert told.returncode == 0, told.stdout + told.stderr


PAGES = [f"page {number}\nof “text” 鍵 " for number in range(30)]


def write_dclm(folder: Path, name: Callable[[int], str] = "shard_0000000{}_processed.jsonl.zst".format) -> None:
    folder.mkdir(parents=True)
    for file in range(3):
        lines = [json.dumps({"text": text, "metadata": {f"k{file}": file}}) for text in PAGES[file::3]]
        data = "".join(f"{line}\n" for line in lines).encode()
        (folder / name(file)).write_bytes(zstandard.compress(data[:100]) + zstandard.compress(data[100:]))


@pytest.mark.slow
def test_the_command_for_texts_runs_as_the_document_has_it(tmp_path: Path) -> None:
    write_dclm(tmp_path / "path/to/ori/DCLM", "{}.json.zst".format)
    path = f"{tmp_path}/path/to"
    line = f"{JOBS}/convert_DCLM_data.py --input_path {path}/ori/DCLM --temp_path {path}/save/tempdata"
    run([sys.executable, *line.split(), "--save_path", f"{path}/save/hfdata"])
    rows = [collate(row) for row in read(f"{path}/save/hfdata")]
    assert sorted(row["text"] for row in rows) == sorted(PAGES)
    assert {row["kind"] for row in rows} == {"text"}


def convert_texts(folder: Path, *options: str) -> int:
    paths = ("--input_path", folder / "in", "--temp_path", folder / "temp", "--save_path", folder / "out")
    return call("convert_DCLM_data", *paths, *options)


def read_texts(folder: Path) -> list[str]:
    return [row["text"] for row in read(str(folder / "out"), seed=0)]


def test_files_that_are_no_input_are_left_out_and_counted(tmp_path: Path) -> None:
    write_dclm(tmp_path / "in/global-shard_01_of_10/local-shard_0_of_10")
    (tmp_path / "in/README.md").write_text("not a page")
    (tmp_path / "in/notes.txt").write_text("not a page either")
    (tmp_path / "in/.gitattributes").write_text("*.zst filter=lfs")
    assert convert_texts(tmp_path) == 0
    assert sorted(read_texts(tmp_path)) == sorted(PAGES)


@pytest.mark.slow
def test_the_result_does_not_depend_on_how_the_work_was_divided(tmp_path: Path) -> None:
    """Liquid merges what an earlier run with other chunks has left, and writes in the order in which threads end."""
    write_dclm(tmp_path / "one/in")
    write_dclm(tmp_path / "two/in")
    assert convert_texts(tmp_path / "one", "--num_shards=3") == 0
    assert convert_texts(tmp_path / "two", "--num_shards=3", "cluster=local", "cluster.array=0-1") == 0
    assert convert_texts(tmp_path / "two", "--num_shards=3", "cluster=local", "cluster.array=0-2") == 0
    assert read_texts(tmp_path / "one") == read_texts(tmp_path / "two")
    files = [sorted(path.name for path in (tmp_path / name / "out").glob("data-*")) for name in ("one", "two")]
    assert files[0] == files[1]
    assert len(files[0]) == 3


@pytest.mark.parametrize("script", ["convert_DCLM_data", "convert_imagepair_cc512"])
@pytest.mark.parametrize("place", ["temp", "temp/out", "full"])
def test_a_place_where_nothing_can_be_made_is_told_before_the_work(
    script: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dclm(tmp_path / "in")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    given = {"convert_DCLM_data": ("--input_path",), "convert_imagepair_cc512": ("--vqgan_path", "x", "--input_pair")}
    line = (*given[script], tmp_path / "in", "--temp_path", tmp_path / "temp", "--save_path", tmp_path / place)
    assert call(script, *line) == 2
    assert f"{tmp_path / place} " in capsys.readouterr().err
    assert not (tmp_path / "temp").exists()


def test_what_lies_in_the_folder_of_the_run_by_accident_changes_nothing(tmp_path: Path) -> None:
    """An empty file, or one of somebody else, in Liquid's temp folder breaks its packing, or becomes rows."""
    write_dclm(tmp_path / "in")
    (tmp_path / "temp").mkdir()
    (tmp_path / "temp/000000.jsonl").write_text("")
    (tmp_path / "temp/000007.jsonl").write_text('{"data_type": "text_pretrain", "text": "of an old run"}\n')
    assert convert_texts(tmp_path, "--num_shards", "2") == 0
    assert sorted(read_texts(tmp_path)) == sorted(PAGES)


@pytest.mark.slow
def test_names_of_folders_may_end_with_a_slash_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_dclm(tmp_path / "in")
    for end in ("", "/"):
        paths = ("--input_path", f"in{end}", "--temp_path", f"temp{end}", "--save_path", f"out{end}")
        assert call("convert_DCLM_data", *paths) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"in", "temp", "out"}


def test_a_record_without_a_text_is_a_reject_and_its_neighbours_stay(tmp_path: Path) -> None:
    """A KeyError in a thread of Liquid's script costs the record, without a word, and often the rest of its file."""
    (tmp_path / "in").mkdir()
    lines = [{"text": "one"}, {"image": "x.jpg"}, {"text_prompt": "for another reader"}, {"text": "two"}]
    (tmp_path / "in/a.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert convert_texts(tmp_path, "data.max_rejected=1", "data.source=text") == 0
    assert sorted(read_texts(tmp_path)) == ["one", "two"]
    rejected = read_status(tmp_path / "temp").counts["rejected"]
    assert sum(rejected.values()) == 2


def test_the_settings_are_those_of_the_preset() -> None:
    config = compose(["+experiments=liquid", "data.raw_data_dir=/in", "data.token_output_dir=/out"])
    assert (config.text.tokenizer, config.text.keep_raw, config.image.tokenizer) == ("none", True, "chameleon")
    assert (config.image.rule, config.data.resolution, config.data.max_aspect) == ("liquid", 512, 2.0)
