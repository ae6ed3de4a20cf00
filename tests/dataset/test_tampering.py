"""Every flipped bit and every edit of what a run and its dataset say of themselves is found.

pytest tests/dataset/test_tampering.py
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from PIL import Image

from hpcdata import TokenDataset
from hpcdata.base import sealed
from hpcdata.base.errors import UserError
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.dataset.verifying import verify
from tests.smallruns import small_run

FAULT = "its bytes are not those that were written: it was edited, or damaged"
RUN_FILES = ("plan.json", "runtime.json", "combined.json")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tampering") / "run"
    small_run(folder)
    combine(folder, CombineOptions())
    assert not problems(folder)
    return folder


def problems(path: Path) -> list[str]:
    try:
        return [problem for report in verify(path) for problem in report.problems]
    except UserError as error:
        return [str(error)]


def flips(data: bytes, number: int) -> list[bytes]:
    """One bit each: in the first and last bytes, where a seal stands, and anywhere."""
    places = {*range(8), *range(len(data) - 90, len(data)), *random.Random(4).sample(range(len(data)), number)}
    found = []
    for place in sorted(places):
        bit = 1 << random.Random(place).randrange(8)
        found.append(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
    return found


@pytest.mark.parametrize("name", [*RUN_FILES, "dataset/manifest.json"])
def test_every_flip_breaks_the_seal(run: Path, name: str) -> None:
    data = (run / name).read_bytes()
    assert sealed.fault_of(data) is None
    missed = [other for other in flips(data, min(2000, len(data))) if not _is_found(other)]
    assert not missed


def _is_found(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return True
    return sealed.fault_of(data) is not None


@pytest.mark.parametrize("name", RUN_FILES)
def test_verify_finds_an_edit_of_a_run(run: Path, name: str, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / name
    file.write_bytes(file.read_bytes().replace(b"true", b"True".lower()).replace(b"1", b"2", 1))
    assert name in problems(tmp_path / "run")[0]


EDITS = {
    "order of parts": lambda body: body["parts"].reverse(),
    "shift": lambda body: body["layout"].update(img_token_shift=77),
    "end of a text": lambda body: body["text"].update(eos_id=3),
    "vocabulary": lambda body: body["text"].update(vocab_size=body["text"]["vocab_size"] + 1),
    "fingerprint": lambda body: body.update(fingerprint="0" * 64),
    "an entry of one's own": lambda body: body.update(mine=1),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_manifest_is_found_refused_and_made_again(run: Path, edit: str, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run/dataset/manifest.json"
    original = file.read_bytes()
    body = json.loads(original)
    EDITS[edit](body)
    file.write_text(json.dumps(body, sort_keys=True, indent=1, ensure_ascii=False) + "\n")
    assert "its bytes are not those that were written" in "".join(problems(tmp_path / "run/dataset"))
    with pytest.raises(UserError, match=r"manifest.json: its bytes are not those.*combine its run again"):
        TokenDataset(tmp_path / "run")
    if edit != "fingerprint":
        combine(tmp_path / "run", CombineOptions())
        assert file.read_bytes() == original
        assert not problems(tmp_path / "run")


def test_an_edited_account_of_a_part_is_found(run: Path, tmp_path: Path) -> None:
    """Its columns and the manifest are as they were: no other number tells of it."""
    shutil.copytree(run, tmp_path / "run")
    file = next(iter(sorted((tmp_path / "run/dataset/parts").glob("*/shard.json"))))
    body = json.loads(file.read_bytes())
    body["counts"]["truncated_texts"] += 0
    body["source"] = "elsewhere"
    file.write_text(json.dumps(body, sort_keys=True, indent=1, ensure_ascii=False) + "\n")
    assert "a shard.json of its parts is not the one that was combined" in "".join(problems(tmp_path / "run/dataset"))


ACCOUNTS = {
    "text_tokens": "text tokens, shard.json says",
    "image_tokens": "image tokens, shard.json says",
    "images": "images, shard.json says",
    "reasons": "its rejects are",
}


@pytest.mark.parametrize("name", ACCOUNTS)
def test_an_edited_account_of_a_shard_is_found_before_it_is_combined(name: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        Image.new("RGB", (32, 32), (9 * number, 2, 3)).save(source / f"{number}.png")
        (source / f"{number}.txt").write_text("a picture")
    (source / "1.png").write_bytes(b"no picture")
    small_run(tmp_path / "run", "data.n_train_samples=null", "data.shard_size=4", source=source)
    assert not problems(tmp_path / "run")
    file = next((tmp_path / "run/shards").glob("*/shard.json"))
    body = json.loads(file.read_bytes())
    if name == "reasons":
        body["counts"]["rejected"] = {"truncated": 1}
    else:
        body["counts"][name] += 1
    file.write_text(json.dumps(body))
    assert ACCOUNTS[name] in "".join(problems(tmp_path / "run"))


def test_a_manifest_without_a_seal_is_of_an_older_version(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run/dataset/manifest.json"
    body = sealed.without_seal(json.loads(file.read_bytes()))
    file.write_text(json.dumps(body))
    assert len(TokenDataset(tmp_path / "run")) > 0
    assert not problems(tmp_path / "run/dataset")


def test_half_a_seal_is_a_fault() -> None:
    data = sealed.to_json({"a": [1, {"sealed": True}]})
    assert sealed.fault_of(data) is None
    assert sealed.fault_of(data[:-30]) == FAULT
    assert sealed.fault_of(data.replace(b"sealed_sha256", b"sealed_sha255")) == FAULT
    assert sealed.fault_of(data.replace(b'"sealed": true,\n', b"", 1)) == FAULT
