"""In, copied, exported, in again: records are what they were.   pytest tests/formats/records/test_round_trips.py"""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata import embedded
from hpcdata.base.errors import UserError
from hpcdata.dataset.manifest import read_manifest
from hpcdata.formats.records.laying_out import export_records
from hpcdata.formats.records.options import RecordOptions
from hpcdata.formats.target import problems_of
from tests.formats.records.made import LINES, TARS, copied, parts_of, read_with, write_lines
from tests.formats.records.test_laying_out import tokens
from tests.work.test_task import make_tar, png

READ_NAMES = """
import json, sys
from megatron.energon import WorkerConfig, get_loader, get_train_dataset
data = get_train_dataset(sys.argv[1], batch_size=None, shuffle_buffer_size=None, max_samples_per_sequence=None,
                         worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0), repeat=False)
print(json.dumps([[sample.__key__, sample.text] for sample in get_loader(data)]))
"""
ODD_NAMES = [
    *("plain", "sub/plain", "a.b/plain", "with space", "Größe", "名前/😀", "__meta", "__x__/in notes", "_one", "-dash"),
    *(
        "(cauldron,llava_format)",
        "GeoQA+(MathV360K)",
        "[0-9]{a,b}",
        "quote'\"",
        "100%",
        "#1",
        "x" * 150,
        "長" * 60,
        "'; DROP",
    ),
]


PAIRS = (*TARS, "copy.format=hf", "copy.columns=pairs")
RECORDS = (*TARS, "copy.format=hf", "copy.columns=records")
FORMS: dict[str, tuple[tuple[str, ...], RecordOptions, str]] = {
    "webdataset": (TARS, RecordOptions(), ""),
    "energon": (TARS, RecordOptions(), ""),
    "hf, pairs": (PAIRS, RecordOptions(), ""),
    "hf, records": (RECORDS, RecordOptions(), ""),
    "jsonl": (LINES, RecordOptions(), ""),
    "jsonl, liquid": (LINES, RecordOptions(style="liquid"), ""),
    "llava": (LINES, RecordOptions(), "llava.json"),
    "llava, lines": (LINES, RecordOptions(lines=True), "llava.jsonl"),
}
"""Format -> how records are copied for it, its options, which of its files is read again."""
CANNOT_HOLD = {
    ("talks", "hf, pairs"): "holds no record",
    ("talks", "jsonl, liquid"): "3 bad_record",
    ("pairs", "llava"): "a caption becomes a conversation",
    ("pairs", "llava, lines"): "a caption becomes a conversation",
}
"""What is said of it, or what becomes of a record."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    for name in ("one", "two"):
        (folder / f"{name}.png").write_bytes(png(len(name)))
    asked, answer = {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A dog."}
    parts = [
        {"type": "image", "image": "one.png"},
        {"type": "text", "text": "?"},
        {"type": "image", "image": "two.png"},
    ]
    rows = [
        {"id": "a/1", "image": "one.png", "conversations": [asked, answer]},
        {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "Two."}]},
        {"id": 3, "conversations": [{"from": "human", "value": "Hi."}, answer], "source": "x"},
    ]
    return {"pairs": embedded.path("quickstart.tar"), "talks": write_lines(folder / "talks.jsonl", rows)}


@pytest.fixture(scope="module")
def originals(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("originals")
    return {name: tokens(folder / name, source, "data.n_train_samples=null") for name, source in sources.items()}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["pairs", "talks"])
def test_what_was_exported_has_the_content_digest_of_its_source_where_the_format_can_hold_it(
    sources: dict[str, Path], originals: dict[str, str], kind: str, form: str, tmp_path: Path
) -> None:
    settings, options, file = FORMS[form]
    run, out = copied(tmp_path / "run", *settings, source=sources[kind]), tmp_path / "out"
    lacking = CANNOT_HOLD.get((kind, form))
    if lacking == "holds no record":
        with pytest.raises(UserError, match=lacking):
            export_records(run, out, "hf")
        return
    target = export_records(run, out, form.partition(",")[0], options)
    assert problems_of(out) == []
    if lacking and lacking in target.describe():
        return
    found = tokens(tmp_path / "tokens", out / file, "data.n_train_samples=null")
    assert (found == originals[kind]) == (lacking is None)


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12).map(
    lambda text: f"w {text}".replace("<", "(")
)
NAMES = st.sampled_from(["a.png", "Größe/ü 名.PNG", "ai2d(cauldron,llava_format)/1.png", "GeoQA+(MathV360K)/x y.png"])
IDS = st.one_of(st.none(), st.integers(), st.sampled_from(["", "coco/train/1", "../../x", "ü", "same", "same"]))


@st.composite
def talks(draw: st.DrawFn) -> dict:
    """A conversation of either form, with none, one or more pictures that its first turns show."""
    pictures = draw(st.lists(NAMES, max_size=3))
    first = "".join(f"<image>{draw(WORDS)}" for _ in pictures) + draw(WORDS)
    texts = [first, *draw(st.lists(WORDS, min_size=1, max_size=3))]
    is_chat = draw(st.booleans())
    speakers = ("user", "assistant") if is_chat else ("human", "gpt")
    names = ("role", "content") if is_chat else ("from", "value")
    turns = [dict(zip(names, (speakers[number % 2], text), strict=True)) for number, text in enumerate(texts)]
    record: dict = {"messages" if is_chat else "conversations": turns, "id": draw(IDS), "extra": draw(WORDS)}
    if pictures:
        record["images" if is_chat else "image"] = pictures if len(pictures) > 1 or is_chat else pictures[0]
    elif draw(st.booleans()):
        record["image"] = None
    return record


@pytest.mark.slow
@given(st.lists(talks(), min_size=1, max_size=6))
@settings(max_examples=4, deadline=None)
def test_conversations_come_back_from_lines_from_llava_and_from_rows(records: list[dict]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, picture in enumerate({item for record in records for item in _pictures(record)}):
            (folder / "in" / picture).parent.mkdir(parents=True, exist_ok=True)
            (folder / "in" / picture).write_bytes(png() + b"%d" % number)
        source = write_lines(folder / "in/in.jsonl", records)
        run = copied(folder / "run", *LINES, "data.shard_size=2", source=source)
        wanted = parts_of(source)
        export_records(run, folder / "jsonl", "jsonl")
        assert parts_of(folder / "jsonl") == wanted
        for lines in (False, True):
            export_records(run, folder / f"llava{lines}", "llava", RecordOptions(lines=lines))
            path = folder / f"llava{lines}" / f"llava.json{'l' * lines}"
            assert parts_of(path) == wanted
            assert problems_of(path.parent) == []
        rows = (*TARS, "copy.format=hf", "copy.columns=records", "data.shard_size=2")
        export_records(copied(folder / "rows", *rows, source=source), folder / "hf", "hf")
        assert parts_of(folder / "hf") == wanted
        again = copied(folder / "again", *rows, source=folder / "hf")
        assert read_manifest(again).content_digest == read_manifest(folder / "rows").content_digest
        found = json.loads((folder / "llavaFalse/llava.json").read_text())
        assert [record["extra"] for record in found] == [record["extra"] for record in records]
        assert all(isinstance(record["id"], str | int) and record.get("image", "") is not None for record in found)


def _pictures(record: dict) -> list[str]:
    found = record.get("images", record.get("image")) or []
    return found if isinstance(found, list) else [found]


@pytest.mark.slow
@given(st.lists(st.lists(st.sampled_from(ODD_NAMES), min_size=1, max_size=6, unique=True), min_size=1, max_size=3))
@settings(max_examples=4, deadline=None)
def test_names_of_all_kinds_come_once_and_webdataset_and_our_sources_read_all(tars: list[list[str]]) -> None:
    import webdataset

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tars = [[item for item in names if not item.startswith("__x__/")] for names in tars]  # a folder of notes
        for number, names in enumerate(tars):
            pieces = [(f"{item}.png", png()) for item in names]
            pieces += [(f"{item}.txt", f"{number} {item}".encode()) for item in names]
            make_tar(folder / f"in/{number}.tar", sorted(pieces))
        if not (kept := sum(map(len, tars))):
            return
        run = copied(folder / "run", *TARS, "data.shard_size=4", source=folder / "in")
        export_records(run, folder / "out", "webdataset")
        paths = [str(path) for path in sorted((folder / "out").glob("*.tar"))]
        samples = list(webdataset.WebDataset(paths, shardshuffle=False))
        assert len({sample["__key__"] for sample in samples}) == len(samples) == kept
        assert parts_of(folder / "out") == parts_of(folder / "in")
        texts = Counter(sample["txt"].decode() for sample in samples)
        assert texts == Counter(part[0][1] for part in parts_of(folder / "in").elements())


@pytest.mark.slow
def test_energon_reads_samples_with_names_of_all_kinds(tmp_path: Path) -> None:
    for number in range(3):
        make_tar(tmp_path / f"in/{number}.tar", [(f"{name}.txt", f"{number} {name}".encode()) for name in ODD_NAMES])
    run = copied(tmp_path / "run", *TARS, "copy.needs=text", "data.shard_size=10", source=tmp_path / "in")
    export_records(run, tmp_path / "out", "energon")
    found = read_with("HPCDATA_TEST_READERS", READ_NAMES, tmp_path / "out")
    wanted = Counter(part[0][1] for part in parts_of(tmp_path / "in", needs_image=False).elements())
    assert Counter(text for _, text in found) == wanted
    assert len({key for key, _ in found}) == len(found) == 3 * (len(ODD_NAMES) - 1)  # `__x__/` is a folder of notes
    names = set[str]()
    for path in (tmp_path / "out").glob("*.tar"):
        with tarfile.open(path) as tar:
            names.update(tar.getnames())
    assert {f"{key}.txt" for key, _ in found} == names


@pytest.mark.parametrize("policy", ["keep", "fix"])
def test_whole_numbers_of_any_size_stay_whole(policy: str, tmp_path: Path) -> None:
    """Ids of more than 64 bits became floats, so several records had one id."""
    big = 12345678901234567890123
    row = {"id": big, "f": 0.1, "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
    path = write_lines(tmp_path / "in.jsonl", [row, {**row, "id": 1, "f": [big], "image": "a.png"}])
    (tmp_path / "a.png").write_bytes(png())
    copies = copied(tmp_path / "run", *LINES, f"data.placeholders={policy}", source=path)
    export_records(copies, tmp_path / "llava", "llava")
    made = json.loads((tmp_path / "llava/llava.json").read_text())
    assert [(item["id"], item["f"]) for item in made] == [(big, 0.1), (1, [big])]


def test_other_fields_with_names_of_pictures_stay_in_copied_lines(tmp_path: Path) -> None:
    """Only the first field is read as pictures; what the others say was left out with it."""
    (tmp_path / "a.png").write_bytes(png())
    others = {"images": ["b.png", "c.png"], "file_name": "old.jpg", "image_url": "http://x/a.jpg"}
    rows = [{"image": "a.png", "text": "x", **others}, {"image_path": "a.png", "text": "x", **others}]
    copies = copied(tmp_path / "run", *LINES, source=write_lines(tmp_path / "in.jsonl", rows))
    (lines,) = copies.glob("dataset/parts/*/records/*.jsonl")
    for number, line in enumerate(map(json.loads, lines.read_text().splitlines())):
        assert line == {"key": f"in.jsonl#{number}", "image": f"files/{number:09d}.png", "text": "x", **others}
