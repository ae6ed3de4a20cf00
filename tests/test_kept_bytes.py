"""What runs write is what earlier versions wrote: shards/, fingerprints.   pytest tests/test_kept_bytes.py

Only command lines run here, so that the tests outlive any move of modules. `RECORDED` was made at commit e717953, but
for cases of several inputs: their shards are cut across inputs since, other samples stand together, and the seven were
recorded anew with that change. Runs begun before it (`BEGUN`, of two inputs) go on with their own cut. Where a digest
differs, datasets are no longer the same, and runs that were begun before are refused: find the cause, and do not
record it anew. To see which file it is, run this with --basetemp=DIR here and in a checkout of that commit; then
compare the folders with `diff -r`.

The digests hold for the libraries of constraints.txt: Pillow makes the pixels, orjson says where JSON ends to be JSON.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.kept import inputs


class Digests(NamedTuple):
    fingerprint: str
    """Of plan.json."""
    shards: str
    """Of all committed folders, names and bytes."""


def arguments(*names: str, **settings: object) -> list[str]:
    """A command line that reads these inputs; settings are named as `data__resolution`."""
    paths = ",".join(f"in/{name}" for name in names)
    return [f"data.raw_data_dir=[{paths}]", *(f"{key.replace('__', '.')}={value}" for key, value in settings.items())]


PICTURES = {"image__tokenizer": "embedded", "data__resolution": 32, "loader__batch_size": 3, "data__shard_size": 5}
FORMATS_OF_PAIRS = (
    *("a.tar", "b.tar.gz", "wids/index.json", "pairs.jsonl", "zipped.jsonl.gz", "talks.jsonl", "array.json", "album"),
    *("notes.jsonl", "notes.json.zst", "notes.parquet", "note.txt"),
)
FORMATS_OF_DOCUMENTS = (
    *("notes.jsonl", "notes.json.zst", "notes.json.gz", "notes.parquet", "array-of-notes.json", "texts"),
    *("note.txt", "note.txt.gz", "note.txt.zst"),
)
FAST_CASES = {
    "captions": arguments(
        *("a.tar", "b.tar.gz", "talks.jsonl", "album"),
        text__tokenizer="embedded",
        image__tokenizer="none",
        data__add_image_token="true",
        data__n_train_samples=40,
    ),
    "documents": [
        "+experiments=text",
        *arguments(*FORMATS_OF_DOCUMENTS, text__tokenizer="embedded", data__shard_size=6, loader__batch_size=4),
    ],
    "cut documents": arguments(
        "titles.jsonl",
        data__source="text",
        text__tokenizer="in/hf",
        image__tokenizer="none",
        data__use_slow_tokenizer="true",
        data__text_field="title",
        data__block_size=7,
        data__shard_size=4,
        model__text_vocab_size=70_000,
    ),
}
SLOW_CASES = {
    "pairs": arguments(
        *FORMATS_OF_PAIRS,
        **PICTURES,
        text__tokenizer="embedded",
        data__block_size=6,
        data__max_record_bytes=40_000,
        data__max_image_pixels=300_000,
    ),
    "talks": arguments(
        "talks.jsonl",
        "array.json",
        **PICTURES,
        text__tokenizer="in/hf/tokenizer.model",
        data__add_image_token="true",
    ),
    "shapes": arguments(
        "shapes.tar",
        "album",
        **PICTURES,
        text__tokenizer="embedded",
        data__max_aspect_ratio=2.5,
        data__jpeg_draft="true",
    ),
    "pictures": arguments("shapes.tar", "a.tar", "pairs.jsonl", "album", **PICTURES, text__tokenizer="none"),
    "quickstart": ["+experiments=quickstart", "cluster=inline", "finish.combine=false"],
}
BEGUN = arguments(
    "begun.tar",
    "begun.json",
    text__tokenizer="embedded",
    image__tokenizer="embedded",
    data__resolution=16,
    data__shard_size=4,
    loader__batch_size=2,
    data__save_tmp_interval=0.000001,
)
"""Of the run in tests/kept/begun, which has one shard, half of another in a checkpoint, and a third one left to do."""
REJECTED_FOR = {
    *("bad_json", "bad_record", "damaged_archive", "duplicate", "empty_image", "empty_text", "missing_image"),
    *("missing_text", "oversized_image", "oversized_record", "oversized_text", "truncated", "unreadable_image"),
    "unreadable_text",
}
RECORDED = {
    "captions": Digests(
        "7cfcafdae188a07e656746f87eaf08622b32fbcd6f2e8e143e18df53b62f52a2",
        "31a1af1d2fb28557ef8018a6f5a5977d061f46f604f764f1b42fa627978b0bee",
    ),
    "documents": Digests(
        "6de71f3f7a3ab46924ad3ee20789aef1abd42f0075cf083a4963a57efd03feb1",
        "8b9b42784e4b097305057fa80786708d8f4e8e23f0e25fddcb27fa1ddac3a54a",
    ),
    "cut documents": Digests(
        "2bd7be87d8aafe4e06498499d1703a86786a6aec548956c75be6b85d632679bb",
        "0f57813a625e5ed883f33579765b121b5a9c1e4c6f8c7c0c2ab463d6806cf41e",
    ),
    "pairs": Digests(
        "4af258924b7ec50774fe03e1e27b187305d1f45bde329f547fac08b8b12b65b8",
        "5d5ad4096c70f59fe8ad981b9986835936e93d147d30ffeb08ed2cc40fdbcb65",
    ),
    "talks": Digests(
        "0a99e4e0ae7c6f19bb3605b86252733cb415df21322c628eebba1b6ed845c6a7",
        "094cd63fb41ba545a5f2bf4c92640e0aa9ec6566fa72ea978a1e37169cff7847",
    ),
    "shapes": Digests(
        "4dbc85c21687f2bcb48c6f7977421342003d30053240ee9a66382fded969665c",
        "d56f282d23d9766f3df6183ca862cb08d1eb0adee3c00ef68940ad601b4d7287",
    ),
    "pictures": Digests(
        "faaf807ec94de769bae0a22038d8e5267777458d71b5d3525eabbb7372c63bc4",
        "1e5031ee7c4c135c8eefb0b6fc2b48158aa6322db1ac37021eb95a8e0b346994",
    ),
    "quickstart": Digests(
        "3fc014a17649d252911d35c928907fef74f4c6b7c6b67c5640b0ed94a1aafdb3",
        "f0ddec0547e5e102fa8a9a5539d3d64b41e1150a5fc2af5e99c67af7334dd15f",
    ),
    "pairs, retried": Digests(
        "4af258924b7ec50774fe03e1e27b187305d1f45bde329f547fac08b8b12b65b8",
        "9f75a90941ff4fcc5d7e39720b660b91999123907cfec96063a0c5d51f18adf2",
    ),
    "begun": Digests(
        "020f1c24588f4145272a8c92d5b2e8497cc40c1355a3a45baa8a87921902f3f9",
        "8dd497e69ffd1ac074594282dfe4186a0f4e12a4faff048f69374a74231f664d",
    ),
    "begun, input gone": Digests(
        "020f1c24588f4145272a8c92d5b2e8497cc40c1355a3a45baa8a87921902f3f9",
        "982c837dd702796a47a8dbcfc116ef5e453190b0a75cb8fd0a2c6e22c2a95444",
    ),
}


class Launched(NamedTuple):
    folder: Path
    digests: Digests


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Launched]:
    """The finished run of a case by its name, made once."""
    done: dict[str, Launched] = {}

    def get(name: str) -> Launched:
        if name not in done:
            folder = tmp_path_factory.mktemp(name.replace(" ", "-"))
            inputs.write_all(folder / "in")
            done[name] = Launched(folder, launch(folder, {**FAST_CASES, **SLOW_CASES}[name]))
        return done[name]

    return get


@pytest.mark.parametrize("name", FAST_CASES)
def test_a_run_of_texts_writes_what_it_wrote_before(name: str, launched: Callable[[str], Launched]) -> None:
    assert launched(name).digests == RECORDED[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_CASES)
def test_a_run_of_pictures_writes_what_it_wrote_before(name: str, launched: Callable[[str], Launched]) -> None:
    assert launched(name).digests == RECORDED[name]


@pytest.mark.slow
def test_the_pairs_are_rejected_for_every_reason_that_a_record_can_give(launched: Callable[[str], Launched]) -> None:
    shards = launched("pairs").folder / "out/shards"
    lines = [line for path in shards.glob("*/rejects.jsonl") for line in path.read_bytes().splitlines()]
    assert {json.loads(line)["reason"] for line in lines} == REJECTED_FOR


@pytest.mark.slow
def test_a_retry_adds_what_it_added_before(launched: Callable[[str], Launched]) -> None:
    """Two pictures that were missing come back."""
    folder = launched("pairs").folder
    for name in ("a.png", "pictures/later.png"):
        shutil.copy(folder / "in/pictures/0.png", folder / "in" / name)
    run(folder, "hpcdata.rejects", "out", "--retry")
    assert digests(folder / "out") == RECORDED["pairs, retried"]


@pytest.mark.slow
def test_a_run_that_was_begun_before_is_continued(tmp_path: Path) -> None:
    """Six samples are in its shards and its checkpoint: who reads them again finds other bytes."""
    copy_begun(tmp_path, encoded=range(6))
    assert launch(tmp_path, BEGUN) == RECORDED["begun"]


@pytest.mark.slow
def test_an_input_that_is_gone_is_rejected_behind_the_checkpoint(tmp_path: Path) -> None:
    copy_begun(tmp_path)
    (tmp_path / "in/begun.tar").unlink()
    assert launch(tmp_path, [*BEGUN, "data.on_changed_input=reject"]) == RECORDED["begun, input gone"]


def copy_begun(folder: Path, encoded: Container[int] = ()) -> None:
    """The run in `folder/out`, with the paths of `folder/in` in its plan; `encoded` as in `inputs.write_begun`."""
    inputs.write_begun(folder / "in", encoded=encoded)
    shutil.copytree(inputs.HERE / "begun", folder / "out")
    for name in ("plan.json", "runtime.json"):
        path = folder / "out" / name
        path.write_text(path.read_text("utf-8").replace("/FOLDER", str(folder.resolve())), "utf-8")


def launch(folder: Path, overrides: Sequence[str]) -> Digests:
    """Runs it to the end in `folder/out`."""
    run(folder, "hpcdata.launch", *overrides, "data.token_output_dir=out", "image.device=cpu")
    assert not list((folder / "out/shards").glob("tmp_*"))
    return digests(folder / "out")


def run(folder: Path, module: str, *arguments: str) -> None:
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def digests(out: Path) -> Digests:
    fingerprint = json.loads((out / "plan.json").read_bytes())["fingerprint"]
    hasher, shards = hashlib.sha256(), out / "shards"
    files = {path.relative_to(shards).as_posix(): path for path in shards.rglob("*") if path.is_file()}
    for name in sorted(files):
        content = files[name].read_bytes()
        hasher.update(f"{name}\0{len(content)}\0".encode() + content)
    return Digests(fingerprint, hasher.hexdigest())
