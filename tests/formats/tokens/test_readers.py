"""Each export is opened by its target's own reader, which yields our rows.

pytest tests/formats/tokens/test_readers.py

The readers of Megatron, Streaming and litData lie in the folder HPCDATA_TEST_READERS, datasets 2.21 in
HPCDATA_TEST_OLD_DATASETS (tests/run.sh makes both); each runs in a process of its own.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from hpcdata.formats.target import problems_of, read_target
from hpcdata.samples import Example, Kind, RawText
from tests.formats.tokens.exports import EOS, dataset, export, mixed, positions, read_by, sequence

pytestmark = pytest.mark.slow

_QUIET = "import sys, json, warnings; warnings.simplefilter('ignore')\n"
MEGATRON = (
    _QUIET
    + """
from megatron.core.datasets.indexed_dataset import IndexedDataset
modes = sys.argv[2] == "modes"
data = IndexedDataset(sys.argv[1] + "/tokens", multimodal=modes)
rows = [data[n] for n in range(len(data))]
plain = IndexedDataset(sys.argv[1] + "/tokens", multimodal=modes, mmap=False)
ids = [(row[0] if modes else row).tolist() for row in rows]
assert [(plain[n][0] if modes else plain[n]).tolist() for n in range(len(rows))] == ids
print(json.dumps({"ids": ids, "dtype": data.index.dtype.__name__, "documents": data.document_indices.tolist(),
    "modes": [int(row[1]) for row in rows] if modes else None}), flush=True)
import os; os._exit(0)  # its multi-storage client complains at the end
"""
)
MDS = (
    _QUIET
    + """
import types, importlib.machinery
for name in ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional"):
    module = types.ModuleType(name)  # its package imports sets of pictures; torchvision has no place beside CPU torch
    module.__spec__, module.__version__, module.__path__ = importlib.machinery.ModuleSpec(name, None), "0", []
    module.VisionDataset, module.to_tensor = object, None
    sys.modules[name] = module
from streaming import StreamingDataset
data = StreamingDataset(local=sys.argv[1], shuffle=False, batch_size=1, validate_hash="sha256")
rows = [data[n] for n in range(len(data))]
plain = lambda value: value.tolist() if hasattr(value, "tolist") else value
print(json.dumps([{name: plain(value) for name, value in row.items()} for row in rows]))
"""
)
LITDATA = (
    _QUIET
    + """
from litdata import StreamingDataset, TokensLoader
block = int(sys.argv[2])
data = StreamingDataset(sys.argv[1], item_loader=TokensLoader(block_size=block) if block else None)
rows = [data[n] for n in range(len(data))]
plain = lambda value: value.tolist() if hasattr(value, "tolist") else value
print(json.dumps([plain(row) if block else {name: plain(value) for name, value in row.items()} for row in rows]))
"""
)
HF = (
    _QUIET
    + """
import datasets
data = datasets.load_from_disk(sys.argv[1])
print(json.dumps({"version": datasets.__version__, "rows": data[:], "fingerprint": data._fingerprint}))
"""
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("source") / "data")


@pytest.mark.parametrize("seed", [None, 7])
def test_megatron_reads_every_row_as_a_document_with_eod(source: Path, tmp_path: Path, seed: int | None) -> None:
    export(source, tmp_path / "out", "megatron", *([f"export.shuffle_seed={seed}"] if seed else []))
    found = json.loads(read_by("HPCDATA_TEST_READERS", MEGATRON, tmp_path / "out", "plain"))
    rows = mixed()
    assert found["ids"] == [sequence(rows[row], eod=EOS)[0] for row in positions(len(rows), seed)]
    assert (found["dtype"], found["documents"]) == ("uint16", list(range(len(rows) + 1)))
    facts = read_target(tmp_path / "out").facts
    assert (facts["image_token_shift"], facts["eod_id"]) == (32001, EOS)
    assert problems_of(tmp_path / "out") == []


def test_megatron_reads_runs_of_texts_and_pictures_with_their_modes(source: Path, tmp_path: Path) -> None:
    settings = ("export.modes=true", "export.bos=1", "export.image_begin=65499", "export.image_end=65501")
    export(source, tmp_path / "out", "megatron", *settings)
    found = json.loads(read_by("HPCDATA_TEST_READERS", MEGATRON, tmp_path / "out", "modes"))
    assert found["dtype"] == "int32"
    documents = found["documents"]
    for number, example in enumerate(mixed()):
        some = slice(documents[number], documents[number + 1])
        ids, _, _ = sequence(example, bos=1, eod=EOS, begin=65499, end=65501)
        assert [item for run in found["ids"][some] for item in run] == ids
        kinds = [int(span.kind == Kind.IMAGE) for span in example.spans]
        runs = [kind for place, kind in enumerate(kinds) if not place or kind != kinds[place - 1]]
        assert found["modes"][some] == runs


@pytest.mark.parametrize("columns", [None, "tokens loss spans"])
def test_streaming_reads_every_row_that_has_ids(source: Path, tmp_path: Path, columns: str | None) -> None:
    more = ["export.columns=[input_ids,loss_mask,key,spans]", "export.dtype=int64"] if columns else []
    export(source, tmp_path / "out", "mds", *more)
    found = json.loads(read_by("HPCDATA_TEST_READERS", MDS, tmp_path / "out"))
    expected = []
    for example in mixed():
        ids, modality, loss = sequence(example)
        kinds = [int(span.kind) for span in example.spans]
        row = {"tokens": ids} | ({"loss_mask": loss, "key": example.key} if columns else {"modality": modality})
        expected.append((row, kinds))
    assert [{name: value for name, value in row.items() if name != "spans"} for row in found] == [
        row for row, _ in expected
    ]
    if columns:
        assert [row["spans"]["span_kind"] for row in found] == [kinds for _, kinds in expected]


def test_litdata_reads_every_row(source: Path, tmp_path: Path) -> None:
    export(source, tmp_path / "out", "litdata", "export.columns=[input_ids,modality,key]", "export.eod=eos")
    found = json.loads(read_by("HPCDATA_TEST_READERS", LITDATA, tmp_path / "out", 0))
    sequences = [(example.key, *sequence(example, eod=EOS)) for example in mixed()]
    assert found == [{"input_ids": ids, "modality": modality, "key": key} for key, ids, modality, _ in sequences]


def test_litdatas_blocks_lose_no_id(source: Path, tmp_path: Path) -> None:
    export(source, tmp_path / "out", "litdata", "export.block_size=8")
    found = json.loads(read_by("HPCDATA_TEST_READERS", LITDATA, tmp_path / "out", 8))
    ids = [item for block in found for item in block]
    added = read_target(tmp_path / "out").facts["added_eod_ids"]
    for example in mixed():  # what fills a chunk's last block stands behind a row
        expected = sequence(example, eod=EOS)[0]
        while ids[: len(expected)] != expected:
            assert ids.pop(0) == EOS
            added -= 1
        del ids[: len(expected)]
    assert ids == [EOS] * added


COLUMNS = {"hf": ("HPCDATA_TEST_OLD_DATASETS", HF), "mds": ("HPCDATA_TEST_READERS", MDS)}
COLUMNS |= {"litdata": ("HPCDATA_TEST_READERS", LITDATA)}
"""Format -> the folder of its reader, and what that prints."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Example]]:
    """Rows with their texts: none, one, two, one of many bytes; ids from none to 300."""
    texts = (["cäption 🗝"], [], ["a\nb", "鍵"], ["x" * 5000], [""])
    examples = [
        dataclasses.replace(example, texts=tuple(RawText(data=text.encode()) for text in texts[row % len(texts)]))
        for row, example in enumerate(mixed())
    ]
    config = {"text": {"keep_raw": True}}
    return dataset(tmp_path_factory.mktemp("kept") / "data", examples, config=config), examples


def read_rows(name: str, out: Path) -> list[dict[str, Any]]:
    """As the format's own reader gives them."""
    variable, program = COLUMNS[name]
    found = json.loads(read_by(variable, program, out, 0))
    if name != "hf":
        return found
    columns = found["rows"]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize("columns", ["text", "key,text,input_ids"])
@pytest.mark.parametrize("name", COLUMNS)
def test_texts_that_were_kept_are_a_column(
    kept: tuple[Path, list[Example]], name: str, columns: str, tmp_path: Path
) -> None:
    source, examples = kept
    export(source, tmp_path / "out", name, f"export.columns=[{columns}]")
    expected = []
    for example in examples:
        ids = {"tokens" if name == "mds" else "input_ids": sequence(example)[0]}
        text = {"text": "\n".join(text.text for text in example.texts)}
        expected.append(text if columns == "text" else {"key": example.key, **text, **ids})
    assert read_rows(name, tmp_path / "out") == expected
    assert problems_of(tmp_path / "out") == []


_OFFSETS = "formats.tokens.packed_items.MOST_BYTES", 1500, "bytes, more than the offsets of a file can reach"
TOO_LONG = {"hf": ("formats.arrow.MOST_IN_BATCH", 280, "holds less"), "mds": _OFFSETS, "litdata": _OFFSETS}
"""Format -> its limit, one for a test, what is said of a row beyond it."""


@pytest.mark.parametrize("name", COLUMNS)
def test_rows_that_are_too_long_are_counted_and_all_others_read(
    kept: tuple[Path, list[Example]], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, examples = kept
    setting, most, message = TOO_LONG[name]
    monkeypatch.setattr(f"hpcdata.{setting}", most)
    passed = export(source, tmp_path / "out", name, "export.columns=[text,input_ids,key]", "export.dtype=int32")
    ids = {example.key: sequence(example)[0] for example in examples}
    texts = {example.key: "\n".join(text.text for text in example.texts) for example in examples}
    long = {key for key in ids if len(texts[key].encode()) > most or len(ids[key]) > 280}
    found = read_rows(name, tmp_path / "out")
    assert [row["key"] for row in found] == [key for key in ids if key not in long]
    assert [row["text"] for row in found] == [texts[row["key"]] for row in found]
    assert passed.counts.written == len(found)
    assert dict(passed.counts.rejected) == {"too_long": len(long)}
    assert passed.counts.is_balanced()
    lines = [json.loads(line) for line in (tmp_path / "out/left_out.jsonl").read_text().splitlines()]
    assert {line["key"] for line in lines} == long
    assert all(line["message"].endswith(message) for line in lines)
    assert problems_of(tmp_path / "out") == []


@pytest.mark.parametrize("variable", ["", "HPCDATA_TEST_OLD_DATASETS"])
def test_datasets_of_both_generations_read_every_row(
    source: Path, tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(source, tmp_path / "out", "hf", "export.columns=[key,input_ids,loss_mask,spans]", "export.shuffle_seed=3")
    monkeypatch.setenv("HPCDATA_TEST_NOTHING", str(tmp_path))  # the one that is installed
    found = json.loads(read_by(variable or "HPCDATA_TEST_NOTHING", HF, tmp_path / "out"))
    assert (found["version"] == "2.21.0") == bool(variable)
    rows = [mixed()[row] for row in positions(len(mixed()), 3)]
    assert found["rows"]["key"] == [example.key for example in rows]
    assert found["rows"]["input_ids"] == [sequence(example)[0] for example in rows]
    assert found["rows"]["loss_mask"] == [sequence(example)[2] for example in rows]
    for name, of_span in (
        ("span_length", lambda span: len(span.ids)),
        ("span_kind", lambda span: int(span.kind)),
        ("span_height", lambda span: span.height),
        ("span_role", lambda span: int(span.role)),
        ("span_loss", lambda span: int(span.loss)),
    ):
        assert found["rows"][name] == [[of_span(span) for span in example.spans] for example in rows], name
