"""Records of any fields, by a mapping.   python -m pytest tests/sources/test_custom.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcdata.base.errors import UserError
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.multimodal import MeasuredDataset, SourceDataset
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.planning import prepare
from hpcdata.runs.rejects import rows_of
from hpcdata.runs.replacing import is_nothing_written
from hpcdata.samples import ImagePart, Record, Reject, Role, Sample
from hpcdata.sources import Options, list_inputs
from hpcdata.sources import prepare as prepare_input
from hpcdata.sources.custom.mapping import parsed, read_mapping
from hpcdata.work.task import TaskOutcome, run_task
from tests.base.foreign.test_yaml_text import BOMB
from tests.smallruns import StopAfter, small_config, small_run
from tests.sources.source_files import json_lines, read_all, write
from tests.work.test_task import png

ROWS = [
    {"uid": 7, "photo": {"path": "0.png"}, "title": "One", "year": 1999, "tags": ["a", "b"], "q": "What?", "n": None},
    {"uid": 8, "photo": {"path": "1.png"}, "title": "Two", "year": 2000.5, "tags": [], "q": "Who?", "n": "x"},
]
DIALOG = {"pic": ["0.png"], "dialog": [{"who": "customer", "what": "<image>hi"}, {"who": "clerk", "what": "yes"}]}

TALK = {"conversations": "dialog", "speaker": "who", "said": "what"}
SPEAKERS = {"customer": "user", "clerk": "assistant"}


def shown(found: Record) -> str:
    if isinstance(found, Reject):
        return f"{found.reason}: {found.message}"
    assert isinstance(found, Sample)
    marks = {Role.NONE: "", Role.SYSTEM: "s:", Role.USER: "u:", Role.ASSISTANT: "a:"}
    return "|".join("I" if isinstance(part, ImagePart) else marks[part.role] + part.text for part in found.parts)


def read_by(mapping: Any, path: Path) -> list[str]:
    line = read_mapping(str(write(path.parent / "map.yaml", json.dumps(mapping).encode())))
    (file,) = list_inputs(str(path), "auto", mapping=line)
    return [shown(record) for record in read_all(prepare_input(file, path.parent / "made"), Options(mapping=line))]


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({"text": "title"}, ["One", "Two"]),
        ({"image": "photo.path", "text": "title"}, ["One|I", "Two|I"]),
        ({"image": "photo", "text": "{title}, {year} {{{tags.0}}}"}, ["One, 1999 {a}|I", "missing_text"]),
        ({"text": "{tags}!"}, ["a, b!", "!"]),
        ({"text": "{n}"}, ["missing_text: text is read from n, which is null", "x"]),
        (
            {"image": "photo", "turns": [{"user": "<image>\n{q}"}, {"assistant": "{title}"}]},
            ["I|u:\nWhat?|a:One", "I|u:\nWho?|a:Two"],
        ),
        (
            {"turns": [{"system": "Be kind."}, {"user": "{prompt}"}, {"assistant": "{year}"}], "prompts": ["{q}"]},
            ["s:Be kind.|u:What?|a:1999", "s:Be kind.|u:Who?|a:2000.5"],
        ),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "jsonl.gz"])
def test_fields_become_parts(mapping: Any, expected: list[str], kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}"
    if kind == "parquet":
        rows = [{**row, "year": str(row["year"])} for row in ROWS]
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        write(path, json.dumps(ROWS).encode() if kind == "json" else json_lines(ROWS))
    found = read_by(mapping, path)
    assert [item[: len(wanted)] for item, wanted in zip(found, expected, strict=True)] == expected


def test_numbers_of_parquet_are_read_where_a_template_names_them(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2], "b": ["x", "y"], "c": [[0.5], [1.5]]}), tmp_path / "x.parquet")
    assert read_by({"text": "{b} {a} {c}"}, tmp_path / "x.parquet") == ["x 1 0.5", "y 2 1.5"]


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({**TALK, "speakers": SPEAKERS}, "bad_record: 1 <image> markers for 0 images"),
        ({"image": "pic", **TALK, "speakers": SPEAKERS}, "I|u:hi|a:yes"),
        (TALK, "bad_record: turn 0 is from nobody known, expected one of system, human, user, gpt, assistant"),
        ({**TALK, "speakers": {"clerk": "assistant"}}, "bad_record: turn 0 is from customer, and speakers has clerk"),
        ({**TALK, "said": "words"}, "bad_record: said of turn 0 is read from words, and the turn has who, what"),
    ],
)
def test_conversations_of_other_names(mapping: Any, expected: str, tmp_path: Path) -> None:
    turns = [
        {"who": who, "what": "hi", **other} for who, other in (("user", {}), ("clerk", {}), ("user", {"words": "w"}))
    ]
    path = write(tmp_path / "x.jsonl", json_lines([DIALOG, *({"dialog": [turn], "pic": ["0.png"]} for turn in turns)]))
    assert read_by(mapping, path)[0] == expected


TABLES = {
    "x.csv": ('name,what\n0.png,"a, b"\n1.png,c\n', {}),
    "x.tsv": ("name\twhat\n0.png\ta, b\n1.png\tc\n", {}),
    "semi.csv": ("name;what\n0.png;a, b\n1.png;c\n", {"delimiter": ";"}),
    "headless.tsv.gz": ("0.png\ta, b\n1.png\tc\n", {"columns": ["name", "what"]}),
    "quotes.tsv": ("name\twhat\n0.png\ta, b\n1.png\tc\n", {"quotes": False}),
    "bom.csv": ('\ufeffname,what\r\n0.png,"a, b"\r\n1.png,c\r\n', {}),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_read_by_their_columns(name: str, tmp_path: Path) -> None:
    text, others = TABLES[name]
    path = write(tmp_path / name, text.encode())
    assert read_by({"image": "name", "text": "what", **others}, path) == ["a, b|I", "c|I"]


def test_whole_numbers_of_any_size_are_written_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", b'{"n": 12345678901234567890123}\n')
    assert read_by({"text": "{n}"}, path) == ["12345678901234567890123"]


def test_a_row_that_is_cut_otherwise_is_a_reject_and_its_neighbours_are_not(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tsv", b'a\tb\n1\t2\n1\t2\t3\n1\n"\t5\n')
    found = read_by({"text": "{a} {b}", "quotes": False}, path)
    wrong = "bad_record: the row has {} values, which is not the number of columns"
    assert found == ["1 2", wrong.format(3), wrong.format(1), '" 5']
    with pytest.raises(UserError, match=r"x\.tsv, line 5: .*quotes: false"):
        read_by({"text": "{a} {b}"}, path)
    with pytest.raises(UserError, match=r"x\.csv is not UTF-8 \(read to line \d\)"):
        read_by({"text": "{a}"}, write(tmp_path / "x.csv", "a\ncafé\n".encode("latin-1")))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"text": "titel"},
            "x.jsonl#0: text is read from titel, and the record has uid, photo, title, year, tags, q, n",
        ),
        ({"image": "photo.file", "text": "title"}, "image is read from photo.file, and the record has uid"),
        ({"image": "year", "text": "title"}, "image is a number, expected a path"),
        ({"conversations": "tags"}, "turn 0 is a string, expected an object"),
        ({"conversations": "title"}, "conversations is read from title, which is a string, expected a list of turns"),
        ({"text": "{photo}"}, "text is read from photo, which is an object, expected text"),
        ({"id": "none", "text": "title"}, "id is read from none"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused_before_work_starts(mapping: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", json_lines(ROWS))
    made = write(tmp_path / "map.yaml", json.dumps(mapping).encode())
    with pytest.raises(UserError, match=r"data\.mapping does not fit x\.jsonl: x\.jsonl#0: ") as caught:
        prepare(small_config(tmp_path / "run", f"data.mapping={made}", source=path))
    assert message in str(caught.value)
    assert not (tmp_path / "run/plan.json").exists()


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ([], "expected a mapping of keys such as image"),
        ({"txt": "a"}, "there is no key txt: did you mean text?"),
        ({"text": "a", "turns": [{"user": "a"}]}, "it has text and turns: expected one of"),
        ({"id": "a"}, "it names no picture and no text"),
        ({"text": "{a"}, "has a brace that holds no field"),
        ({"text": "{}"}, "has a brace that holds no field"),
        ({"turns": [{"human": "a"}]}, "expected one of system, user, assistant"),
        ({"turns": []}, "turns is a list, expected a list"),
        ({"text": "a", "speaker": "b"}, "speaker is of conversations"),
        ({"conversations": "a", "speakers": {"x": "human"}}, "speakers has x: human"),
        ({"text": "a", "prompts": ["b"]}, "it has prompts, and no {prompt}"),
        ({"text": "a", "delimiter": ";;"}, "delimiter is ';;'"),
        ({"text": "a", "quotes": "no"}, "quotes is 'no'"),
        ({"image": 3}, "image is 3, expected the name of a field"),
        ({"text": "a", "columns": ["a", "a"]}, "columns has a name twice"),
    ],
)
def test_a_mapping_that_cannot_be_meant_so_is_refused(mapping: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "map.yaml", json.dumps(mapping).encode())
    with pytest.raises(UserError) as caught:
        read_mapping(str(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_mapping_whose_aliases_stand_for_all_memory_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "map.yaml", f"{BOMB}text: *a11\n".encode())
    with pytest.raises(UserError, match="is not YAML: line 6: its aliases count, and it has more than 1048576 values"):
        read_mapping(str(path))


def test_prompts_are_drawn_for_each_record_and_always_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", json_lines([{"a": f"t{n}"} for n in range(60)]))
    mapping: Any = {"turns": [{"user": "{prompt}"}, {"assistant": "{a}"}], "prompts": ["p", "q", "r"]}
    first, again, other = (read_by({**mapping, "seed": seed}, path) for seed in (0, 0, 1))
    assert first == again != other
    assert {item[2] for item in first} == {"p", "q", "r"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number in range(2):
        write(tmp_path / f"in/{number}.png", png(number))
    write(tmp_path / "in/x.csv", b"img;what\n0.png;a\n1.png;b\ngone.png;c\n;d\n")
    write(tmp_path / "map.yaml", b"image: img\ntext: what\ndelimiter: ';'\n")
    return tmp_path / "in"


def test_every_stage_and_the_raw_path_read_by_a_mapping(source: Path, tmp_path: Path) -> None:
    mapping = f"data.mapping={tmp_path / 'map.yaml'}"
    whole = ("data.n_train_samples=null", mapping)
    small_run(tmp_path / "tokens", *whole, source=source)
    counts = combine(tmp_path / "tokens", CombineOptions()).counts
    assert (counts.written, dict(counts.rejected)) == (2, {"missing_image": 2})
    small_run(tmp_path / "measured", "stage=measure", "image.tokenizer=null", *whole, source=source)
    combine(tmp_path / "measured", CombineOptions())
    small_run(tmp_path / "copied", "stage=copy", "copy.format=jsonl", *whole, source=source)
    combine(tmp_path / "copied", CombineOptions())
    raw = SourceDataset(source, mapping=tmp_path / "map.yaml")
    measured, copied = MeasuredDataset(tmp_path / "measured"), SourceDataset(tmp_path / "copied")
    assert [raw[item]["text"] for item in range(2)] == ["a", "b"]
    assert [measured[item]["text"] for item in range(2)] == ["a", "b"]
    assert [copied[item]["text"] for item in range(2)] == ["a", "b"]
    assert {row.reason for row in rows_of(tmp_path / "copied")} == {"missing_image"}


def test_another_mapping_is_another_run(source: Path, tmp_path: Path) -> None:
    mapping = f"data.mapping={tmp_path / 'map.yaml'}"
    first = prepare(small_config(tmp_path / "run", mapping, source=source))
    assert run_task(tmp_path / "run", StopAfter(3)) is TaskOutcome.STOPPED  # type: ignore[arg-type]
    assert not is_nothing_written(RunPaths(tmp_path / "run"))
    write(tmp_path / "map.yaml", b"# the same\n{delimiter: ;, text: what, image: img}\n")
    assert prepare(small_config(tmp_path / "run", mapping, source=source)).fingerprint == first.fingerprint
    write(tmp_path / "map.yaml", b"image: img\ntext: '{what}!'\ndelimiter: ';'\n")
    with pytest.raises(UserError, match=r"data\.mapped_by was .*, now "):
        prepare(small_config(tmp_path / "run", mapping, source=source))


def test_fields_of_a_mapping_are_those_that_records_must_have() -> None:
    mapping = parsed('{"image": "a", "turns": [{"user": "{prompt} {b.c}"}], "prompts": ["{d}"]}')
    assert mapping.fields() == ["a", "b.c", "d"]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_pictures_of_several_fields_are_read_in_their_order(kind: str, tmp_path: Path) -> None:
    rows = [{"front": "0.png", "side": "1.png"}, {"front": "", "side": "2.png"}, {"front": "", "side": ""}]
    if kind == "csv":
        data = "front,side\n" + "".join(f"{row['front']},{row['side']}\n" for row in rows)
        path = write(tmp_path / "x.csv", data.encode())
    else:
        path = write(tmp_path / "x.jsonl", json_lines(rows))
    mapping = {"image": ["side", "front"], "turns": [{"user": "Which?"}, {"assistant": "Both."}]}
    assert read_by(mapping, path) == [
        "I|I|u:Which?|a:Both.",
        "I|u:Which?|a:Both.",
        "missing_image: image is read from side, front, which are empty",
    ]
    with pytest.raises(UserError, match="image is read from back, and the record has front, side"):
        read_by({**mapping, "image": ["side", "back"]}, path)
    with pytest.raises(UserError, match="image has a field twice"):
        parsed(json.dumps({"image": ["side", "side"]}))
