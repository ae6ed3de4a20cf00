"""Any flipped bit and any edit of any file of a run or its dataset is found by `verify`.

pytest tests/dataset/test_flips.py      every 19,997th bit; HPCDATA_FLIPS=101: every 101st, as tests/proof.py does
"""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcdata.base import sealed
from hpcdata.base.errors import UserError
from hpcdata.dataset.verifying import verify
from tests.evidence import Attacked
from tests.whole_runs import RUNS

EVERY = int(os.environ.get("HPCDATA_FLIPS", "19997"))
EXPECTED = {
    "finished": (
        *("plan.json", "runtime.json", "combined.json", "batch_size.json", "halted.json", "report.json", "report.txt"),
        *(
            "inputs/",
            "ledger/",
            "logs/7_submission.sh",
            "submissions/",
            "dataset/manifest.json",
            "dataset/columns/",
            "dataset/baked/",
        ),
        *("dataset/parts/00000-of-00003/rejects.jsonl", "dataset/parts/retry-00001/recovered.jsonl"),
    ),
    "in work": ("plan.json", "shards/tmp_", "crashes/", "claims/", "shards/00"),
    "raw": ("dataset/parts/00000-of-00002/files.list", "dataset/parts/00000-of-00002/records/files/000000000.png"),
}


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = RUNS[request.param](tmp_path_factory.mktemp("whole") / "of")
    for name in EXPECTED[request.param]:
        assert any(file.startswith(name) for file in names(folder)), name
    logging.disable(logging.CRITICAL)
    assert problems(folder) == []
    yield folder
    logging.disable(logging.NOTSET)
    assert problems(folder) == [], "every file is again as it was"


def names(run: Path) -> dict[str, Path]:
    """Relative name -> file, one name for each inode."""
    files = sorted((path for path in run.rglob("*") if path.is_file()), reverse=True)
    return {str(path.relative_to(run)): path for path in {path.stat().st_ino: path for path in files}.values()}


def problems(run: Path) -> list[str]:
    """What is wrong, but for shards that are still to be made."""
    try:
        found = [problem for report in verify(run) for problem in report.problems]
    except UserError as error:
        return [str(error)]
    return [problem for problem in found if " shards are not committed" not in problem]


def is_found(run: Path, path: Path, data: bytes) -> bool:
    """Whether `verify` finds these bytes in place of those of a file, which has its own again then."""
    original = path.read_bytes()
    _overwrite(path, data)
    try:
        return bool(problems(run))
    finally:
        _overwrite(path, original)


def _overwrite(path: Path, data: bytes) -> None:
    """In place: a file may have several names."""
    with open(path, "r+b") as file:
        file.truncate(len(data))
        file.write(data)


@pytest.mark.slow
def test_every_flipped_bit_is_found(run: Path, attacked: Attacked) -> None:
    number, missed, before = 0, [], 0
    for name, path in names(run).items():
        data = path.read_bytes()
        for place in range(-before % EVERY, 8 * len(data), EVERY):
            flipped = data[: place // 8] + bytes([data[place // 8] ^ 1 << place % 8]) + data[place // 8 + 1 :]
            number += 1
            if not is_found(run, path, flipped):
                missed.append((name, place))
        before += 8 * len(data)
    attacked("flipped bits", number)
    assert missed == []


@pytest.mark.slow
def test_every_file_that_is_cut_is_found(run: Path, attacked: Attacked) -> None:
    """But for a ledger, whose process may have been killed then."""
    kept = {name: path.read_bytes() for name, path in names(run).items() if not name.startswith("ledger/")}
    cut = {name: data[: len(data) // 2] for name, data in kept.items() if data.strip()}
    missed = [name for name, data in cut.items() if not is_found(run, names(run)[name], data)]
    attacked("files cut in half", len(cut))
    assert missed == []


@pytest.mark.slow
def test_a_line_that_is_removed_from_a_ledger_is_found(run: Path, attacked: Attacked) -> None:
    number = 0
    for name, path in names(run).items():
        lines = path.read_bytes().splitlines(keepends=True) if name.startswith("ledger/") else []
        for place in range(len(lines) - 1):
            number += 1
            assert is_found(run, path, b"".join([*lines[:place], *lines[place + 1 :]])), (name, place)
    attacked("lines removed from ledgers", number)


def places_of(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Keys and indices that lead to each value in parsed JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places_of(item, (*at, key))
    yield at


def changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return value[1:] or [1]
    return {**value, "mine": 1} if isinstance(value, dict) else f"{value}x"


def edited(values: Any, at: tuple[Any, ...]) -> Any:
    values = copy.deepcopy(values)
    if not at:
        return changed(values)
    within = values
    for key in at[:-1]:
        within = within[key]
    within[at[-1]] = changed(within[at[-1]])
    return values


def as_text(values: Any) -> bytes:
    return (json.dumps(values, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


@pytest.mark.slow
def test_every_edited_value_of_every_json_file_is_found(run: Path, attacked: Attacked) -> None:
    every, number, missed = max(1, EVERY // 400), 0, []
    for name, path in names(run).items():
        if not name.endswith(".json"):
            continue
        values = json.loads(path.read_bytes())
        for at in list(places_of(values))[::every]:
            number += 1
            if not is_found(run, path, as_text(edited(values, at))):
                missed.append((name, at))
    attacked("edited values", number)
    assert missed == []


RESEALED: dict[str, Callable[[dict[str, Any]], object]] = {
    "shift": lambda body: body["layout"].update(img_token_shift=77),
    "text vocabulary": lambda body: body["layout"].update(text_vocab_size=77),
    "beginning of a text": lambda body: body["text"].update(bos_id=3),
    "end of a text": lambda body: body["text"].update(eos_id=3),
    "padding": lambda body: body["text"].update(pad_id=3),
    "vocabulary": lambda body: body["text"].update(vocab_size=body["text"]["vocab_size"] + 1),
    "codebook": lambda body: body["image"].update(codebook_size=7),
    "fingerprint": lambda body: body.update(fingerprint="0" * 64),
    "dtype": lambda body: body.update(id_dtype="int32"),
    "order of parts": lambda body: body["parts"].reverse(),
    "a part less": lambda body: body["parts"].pop(),
    "a part twice": lambda body: body["parts"].append(body["parts"][0]),
    "tokens of a part": lambda body: body["parts"][0].update(tokens=1),
    "samples of a part": lambda body: body["parts"][0].update(samples=1),
    "account": lambda body: body["counts"].update(text_tokens=1),
    "digest": lambda body: body.update(content_digest="0" * 64),
    "configuration": lambda body: body["config"]["data"].update(resolution=64),
    "inputs": lambda body: body["inputs"].clear(),
    "gaps": lambda body: body.update(gaps=[{"missing": 1}]),
    "gaps that are none": lambda body: body.update(gaps=[1]),
    "retries that are none": lambda body: body.update(retries=[1]),
    "joined columns": lambda body: body["joined"].update({"samples/index.memmap": "0" * 64}),
}
"""Edits of a manifest by somebody who seals it again, which says that it was meant."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return RUNS["finished"](tmp_path_factory.mktemp("finished") / "of")


@pytest.mark.parametrize("edit", RESEALED)
def test_an_edited_manifest_that_is_sealed_again_is_not_that_of_its_run(finished: Path, edit: str) -> None:
    path = finished / "dataset/manifest.json"
    body = sealed.without_seal(json.loads(path.read_bytes()))
    RESEALED[edit](body)
    assert is_found(finished, path, sealed.to_json(body))


@pytest.mark.parametrize("at", ["data.resolution", "data.block_size", "image.rule"])
def test_settings_that_are_no_longer_the_plans_are_found_though_sealed_again(finished: Path, at: str) -> None:
    path = finished / "runtime.json"
    body = sealed.without_seal(json.loads(path.read_bytes()))
    room, _, name = at.partition(".")
    body[room][name] = 64 if isinstance(body[room][name], int) else "molmo"
    assert is_found(finished, path, sealed.to_json(body))
