"""The stage `convert`: tables with pictures become JSON and files.   pytest tests/stages/test_convert.py

Every odd record of real sets has its end here, as a file of its own.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from hpcdata.base.errors import UserError
from hpcdata.config.compose import compose
from hpcdata.config.schema import RunConfig
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.dataset.verifying import verify
from hpcdata.formats.target import problems_of, read_target
from hpcdata.runs.planning import prepare
from hpcdata.runs.rejects import rows_of
from hpcdata.samples import BadSample, PreparedBatch
from hpcdata.sources import InputFile, read, scan
from hpcdata.sources.base import RECORDS
from hpcdata.sources.pictures import telling
from hpcdata.stages.convert import STAGE
from hpcdata.stages.convert.making import ConvertedBatch, Converting
from hpcdata.work.prove import prove
from hpcdata.work.retry import retry
from hpcdata.work.task import TaskOutcome, run_task
from tests.llava_tables import IMAGE, SCHEMA, TURN, Row, picture, row, talk, write
from tests.poisoned import CHECKING, install
from tests.smallruns import StopAfter
from tests.work.test_poison import run_until_done

HI = talk("Hello")


def arguments(source: Path, run: Path, *overrides: str) -> list[str]:
    return [
        *("stage=convert", "data.source=parquet", f"data.raw_data_dir={source}", f"data.token_output_dir={run}"),
        *("data.shard_size=3", "loader.batch_size=2", "data.save_tmp_interval=0.000001", *overrides),
    ]


@functools.cache
def composed(overrides: tuple[str, ...]) -> RunConfig:
    return compose(arguments(Path("/in"), Path("/out"), *overrides))


def converted(source: Path, folder: Path, *overrides: str) -> Path:
    """The folder that is arranged of a run in `folder`."""
    prepare(compose(arguments(source, folder, *overrides)))
    assert run_task(folder, StopAfter()) is TaskOutcome.FINISHED  # type: ignore[arg-type]
    made = combine(folder, CombineOptions()).target
    assert made is not None
    assert problems_of(made) == []
    return made


def records(out: Path) -> list[dict[str, Any]]:
    """As the original trainer reads them, which looks for each picture where `image` says."""
    (path,) = [path for path in out.glob("*.json") if path.name != "hpcdata.json"]
    found: list[dict[str, Any]] = json.loads(path.read_text())
    for record in found:
        assert record.get("image", "") is not None, "null breaks the trainer"
        names = record.get("image", [])
        for name in [names] if isinstance(names, str) else names:
            with Image.open(out / name) as image:
                image.convert("RGB")
    return found


def rejects(out: Path) -> dict[str, str]:
    with open(out / "rejects.csv", newline="") as file:
        return {line["id"]: line["reason"].partition(":")[0] for line in csv.DictReader(file)}


def batch(tmp_path: Path, rows: list[Row], schema: pa.Schema | None = SCHEMA, *overrides: str) -> ConvertedBatch:
    """What the stage makes of a table, without a run around it."""
    path = write(tmp_path / "in/x.parquet", rows, schema)
    file = InputFile(path=str(path), label="x", format=RECORDS, base=str(path.parent), roots=(str(path.parent),))
    plan: Any = SimpleNamespace(config=composed(overrides))
    options, prepare_record = STAGE.options(plan.config), STAGE.preparing(plan)
    found = list(read(file, scan(file, every=8, options=options), first=0, count=len(rows), options=options))
    prepared = list[Any]()
    for record in found:
        try:
            prepared.append(prepare_record(record))
        except BadSample as bad:
            prepared.append(bad)
    return Converting(plan).start(PreparedBatch(records=found, prepared=prepared), first_index=0, source="x")()


def one(tmp_path: Path, record: Row, schema: pa.Schema | None = SCHEMA, *overrides: str) -> Any:
    """What becomes of a record: what is written, or the reason why it is not."""
    made = batch(tmp_path, [record], schema, *overrides)
    assert len(made.samples) + len(made.rejects) == 1
    return json.loads(made.samples[0].line) if made.samples else made.rejects[0].reason


def file_of(tmp_path: Path, data: bytes, *overrides: str) -> tuple[str, bytes]:
    """(name, content) of the file of a picture."""
    (sample,) = batch(tmp_path, [row("x", data)], SCHEMA, *overrides).samples
    assert [sha256 for _, sha256 in sample.files] == [hashlib.sha256(item).hexdigest() for item in sample.pictures]
    return sample.files[0][0], sample.pictures[0]


LISTS = pa.schema([("id", pa.string()), ("images", pa.list_(IMAGE)), ("conversations", pa.list_(TURN))])
LARGE = pa.schema(
    [
        ("id", pa.large_string()),
        ("image", pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])),
        ("conversations", pa.large_list(TURN)),
    ]
)
OLD = pa.schema(
    [
        ("id", pa.int64()),
        ("images", pa.struct([("bytes", pa.list_(pa.binary())), ("path", pa.list_(pa.string()))])),
        ("conversations", pa.struct([("from", pa.list_(pa.string())), ("value", pa.list_(pa.string()))])),
    ]
)
CHAT = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.binary()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
    ]
)
EXTRA = pa.schema(
    [
        ("id", pa.string()),
        ("image", IMAGE),
        ("conversations", pa.list_(pa.struct([*TURN, pa.field("markdown", pa.string())]))),
        ("score", pa.float64()),
        ("embedding", pa.binary()),
    ]
)
NUMBERED = pa.schema([("id", pa.int64()), *list(SCHEMA)[1:]])
TWO = [{"bytes": picture(1), "path": None}, {"bytes": picture(2, "PNG"), "path": "b.png"}]
JPEG = picture()

ODD: dict[str, tuple[Row, pa.Schema | None, Any]] = {
    "as usual": (
        row("a", JPEG, data_source="coco"),
        SCHEMA,
        {"id": "a", "image": "image/a.jpg", "conversations": talk(), "data_source": "coco"},
    ),
    "no picture": (row("t", None, HI), SCHEMA, {"id": "t", "conversations": HI}),
    "a picture of nothing, and no marker": (row("t", b"", HI), SCHEMA, {"id": "t", "conversations": HI}),
    "a picture of nothing, and a marker": (row("t", b""), SCHEMA, "empty_image"),
    "a struct of nulls, and a marker": (
        {"id": "t", "image": {"bytes": None, "path": None}, "conversations": talk()},
        SCHEMA,
        "empty_image",
    ),
    "a list of pictures": (
        {"id": "two", "images": TWO, "conversations": talk("<image><image>?")},
        LISTS,
        {"id": "two", "image": ["image/two~p0.jpg", "image/two~p1.png"], "conversations": talk("<image><image>?")},
    ),
    "a list of one": (
        {"id": "x", "images": TWO[:1], "conversations": talk()},
        LISTS,
        {"id": "x", "image": "image/x.jpg", "conversations": talk()},
    ),
    "an empty list": ({"id": "x", "images": [], "conversations": HI}, LISTS, {"id": "x", "conversations": HI}),
    "a null among pictures that no marker asks for": (
        {"id": "x", "images": [None, TWO[0]], "conversations": talk()},
        LISTS,
        {"id": "x", "image": "image/x.jpg", "conversations": talk()},
    ),
    "a null among pictures that a marker asks for": (
        {"id": "x", "images": [None, TWO[0]], "conversations": talk("<image><image>")},
        LISTS,
        "empty_image",
    ),
    "large types": (row("x", JPEG), LARGE, {"id": "x", "image": "image/x.jpg", "conversations": talk()}),
    "objects of lists": (
        {
            "id": 7,
            "images": {"bytes": [TWO[0]["bytes"]], "path": [None]},
            "conversations": {"from": ["human", "gpt"], "value": ["<image>", "b"]},
        },
        OLD,
        {"id": 7, "image": "image/7.jpg", "conversations": talk("<image>", "b")},
    ),
    "objects of unequal lists": (
        {"id": 7, "images": None, "conversations": {"from": ["human", "gpt"], "value": ["a"]}},
        OLD,
        "bad_record",
    ),
    "roles and contents, bare bytes": (
        {"id": "x", "image": JPEG, "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]},
        CHAT,
        {
            "id": "x",
            "image": "image/x.jpg",
            "conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "u"}],
        },
    ),
    "further keys": (
        {
            **row("x", JPEG, [{"from": "human", "value": "<image>", "markdown": "m"}, *talk()[1:]]),
            "score": 0.25,
            "embedding": b"\x00",
        },
        EXTRA,
        {
            "id": "x",
            "image": "image/x.jpg",
            "conversations": [{"from": "human", "value": "<image>", "markdown": "m"}, *talk()[1:]],
            "score": 0.25,
        },
    ),
    "an id that is a number": (
        row(12, JPEG),
        NUMBERED,
        {"id": 12, "image": "image/12.jpg", "conversations": talk()},
    ),
    "no id": (row(None, JPEG), SCHEMA, {"image": "image/000000.jpg", "conversations": talk()}),
    "an id with slashes": (
        row("coco/train2017/0001", JPEG),
        SCHEMA,
        {"id": "coco/train2017/0001", "image": "image/coco_train2017_0001.jpg", "conversations": talk()},
    ),
    "an id that leads out": (
        row("../../etc/passwd", JPEG),
        SCHEMA,
        {"id": "../../etc/passwd", "image": "image/___.._etc_passwd.jpg", "conversations": talk()},
    ),
    "an absolute id": (
        row("/etc/passwd", JPEG),
        SCHEMA,
        {"id": "/etc/passwd", "image": "image/_etc_passwd.jpg", "conversations": talk()},
    ),
    "a GIF": (row("g", picture(0, "GIF")), SCHEMA, {"id": "g", "image": "image/g.png", "conversations": talk()}),
    "no picture, though it says so": (row("x", b"\xff\xd8\xff nothing"), SCHEMA, "unreadable_image"),
    "a picture that ends early": (row("x", JPEG[:-200]), SCHEMA, "truncated"),
    "text in the place of a picture": (row("x", b"<html>404</html>"), SCHEMA, "unreadable_image"),
    "no turns": (row("x", JPEG, []), SCHEMA, "bad_record"),
    "turns of nobody known": (row("x", JPEG, [{"from": "bing", "value": "?"}]), SCHEMA, "bad_record"),
    "a first turn of the model": (
        row("x", None, HI[::-1]),
        SCHEMA,
        {"id": "x", "conversations": HI[::-1]},
    ),
    "a marker too many": (
        row("x", JPEG, talk("<image><image>")),
        SCHEMA,
        {"id": "x", "image": "image/x.jpg", "conversations": talk("<image><image>")},
    ),
    "a marker without a picture": (row("x", None), SCHEMA, {"id": "x", "conversations": talk()}),
    "a path outside": (
        {"id": "x", "image": {"bytes": None, "path": "../../etc/passwd"}, "conversations": talk()},
        SCHEMA,
        "outside_root",
    ),
    "a path of nothing": (
        {"id": "x", "image": {"bytes": None, "path": "gone.jpg"}, "conversations": talk()},
        SCHEMA,
        "missing_image",
    ),
    "an address": (
        {"id": "x", "image": {"bytes": None, "path": "https://x/a.jpg"}, "conversations": talk()},
        SCHEMA,
        "unsupported_media",
    ),
    "a video": ({**row("x", None, HI), "video": "a.mp4"}, None, "unsupported_media"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_record_has_its_documented_end(tmp_path: Path, name: str) -> None:
    record, schema, expected = ODD[name]
    assert one(tmp_path, record, schema) == expected


def test_a_picture_in_a_file_of_its_own_is_found_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/p.jpg").write_bytes(JPEG)
    record = {"id": "x", "image": {"bytes": None, "path": "p.jpg"}, "conversations": talk()}
    (sample,) = batch(tmp_path, [record]).samples
    assert (sample.files[0][0], sample.pictures) == ("000000000.jpg", (JPEG,))


@pytest.mark.parametrize(("kind", "ending"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_the_usual_kinds_are_the_bytes_that_they_were(tmp_path: Path, kind: str, ending: str) -> None:
    data = picture(3, kind)
    assert file_of(tmp_path, data) == (f"000000000.{ending}", data)


@pytest.mark.parametrize(
    ("others", "expected"), [("png", "image/x.png"), ("keep", "image/x.bmp"), ("reject", "unsupported_media")]
)
def test_other_kinds_are_what_the_setting_says(tmp_path: Path, others: str, expected: str) -> None:
    data = picture(3, "BMP")
    found = one(tmp_path, row("x", data), SCHEMA, f"convert.others={others}")
    assert (found if isinstance(found, str) else found["image"]) == expected
    if not isinstance(found, str):
        _, written = file_of(tmp_path, data, f"convert.others={others}")
        with Image.open(io.BytesIO(written)) as image, Image.open(io.BytesIO(data)) as same:
            assert image.format == ("PNG" if others == "png" else "BMP")
            assert image.convert("RGB").tobytes() == same.convert("RGB").tobytes()


@pytest.mark.parametrize(
    ("policy", "question", "data", "expected"),
    [
        ("keep", "What?", JPEG, "What?"),
        ("fix", "What?", JPEG, "<image>\nWhat?"),
        ("fix", "a <image> here", JPEG, "a <image> here"),
        ("fix", "<image><image>", JPEG, "marker_without_image"),
        ("fix", "<image>", None, "marker_without_image"),
        ("reject", "What?", JPEG, "image_without_marker"),
        ("reject", "<image><image>", JPEG, "marker_without_image"),
        ("reject", "What?", None, "What?"),
    ],
)
def test_placeholders(tmp_path: Path, policy: str, question: str, data: bytes | None, expected: str) -> None:
    made = batch(tmp_path, [row("x", data, talk(question))], SCHEMA, f"data.placeholders={policy}")
    said = [json.loads(sample.line)["conversations"][0]["value"] for sample in made.samples]
    assert [*said, *(reject.reason for reject in made.rejects)] == [expected]
    assert made.counts().fixed_placeholders == (expected == "<image>\nWhat?")


def test_an_id_that_is_no_utf_8_is_escaped_and_its_record_written(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([b"caf\xe9", b"good"], pa.binary()).view(pa.string()),
            "image": pa.array([{"bytes": JPEG, "path": None}] * 2, IMAGE),
            "conversations": pa.array([talk()] * 2, pa.list_(TURN)),
        }
    )
    (tmp_path / "in").mkdir()
    pa.parquet.write_table(table, tmp_path / "in/x.parquet")
    found = records(converted(tmp_path / "in", tmp_path / "run"))
    assert [record["id"] for record in found] == ["caf\\xe9", "good"]
    assert [record["image"] for record in found] == ["image/caf_xe9.jpg", "image/good.jpg"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([b"0123456789abcdef", b"a"], pa.binary()),
        ([b"0123456789abcdef"], pa.binary(16)),
        (["a", "b"], pa.string_view()),
        ([b"a", b"\xff"], pa.binary_view()),
    ],
)
def test_ids_of_any_type_of_bytes_or_text_are_kept(values: list[Any], kind: pa.DataType, tmp_path: Path) -> None:
    schema = SCHEMA.set(0, pa.field("id", kind))
    made = batch(tmp_path, [row(value, JPEG) for value in values], schema)
    texts = [value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value for value in values]
    assert [json.loads(sample.line)["id"] for sample in made.samples] == texts


def test_bytes_that_have_no_place_are_counted_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second column of pictures was lost in silence, with an object of nulls where it was."""
    monkeypatch.setattr(telling, "_told", set())
    kinds = {"depth": IMAGE, "masks": pa.list_(IMAGE), "sha": pa.binary(2)}
    schema = pa.schema([*SCHEMA, *(pa.field(name, kind) for name, kind in kinds.items())])
    held = {"bytes": JPEG, "path": None}
    rows = [row("a", JPEG, depth=held, masks=[held]), row("b", JPEG, masks=[]), row("c", JPEG, sha=b"ab")]
    out = converted(write(tmp_path / "in/x.parquet", rows, schema), tmp_path / "run")
    assert read_target(out).facts["notes"] == {"other_bytes_left_out": 2}
    assert not any({"depth", "sha"} & record.keys() or record.get("masks") for record in records(out))
    assert "what is in depth, masks, sha is left out" in caplog.text


def test_prompts_stand_where_a_question_is_empty_the_same_in_every_run(tmp_path: Path) -> None:
    rows = [row(f"{number}", JPEG, talk("<image>")) for number in range(60)] + [row("q", JPEG)]
    asked = []
    for seed in (0, 0, 1):
        made = batch(tmp_path, rows, SCHEMA, "convert.prompt=recap", f"convert.seed={seed}")
        asked.append([json.loads(sample.line)["conversations"][0]["value"] for sample in made.samples])
    assert asked[0] == asked[1] != asked[2]
    assert asked[0][-1] == talk()[0]["value"]
    assert all(text.startswith("<image>\n") for text in asked[0])
    first = "<image>\nPlease generate detailed descriptions of the given image."
    assert 0.65 < asked[0][:-1].count(first) / 60 < 0.95
    assert 3 < len({*asked[0]}) <= 8


def test_a_prompt_of_ones_own_is_said_to_each(tmp_path: Path) -> None:
    found = one(tmp_path, row("x", JPEG, talk("<image>")), SCHEMA, "convert.prompt=Tell me, please!")
    assert found["conversations"][0]["value"] == "<image>\nTell me, please!"


@pytest.mark.parametrize(
    "override",
    ["convert.image_prefix=x", "convert.json_name=a/b.json", "convert.prompt=[]", "data.mapping=map.yaml"],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, override: str) -> None:
    source = write(tmp_path / "in/x.parquet", [row("x", JPEG)])
    with pytest.raises(UserError, match=override.partition("=")[0]):
        prepare(compose(arguments(source, tmp_path / "run", override)))


def test_other_inputs_than_tables_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(UserError, match=r"stage=convert reads Parquet"):
        prepare(compose(arguments(tmp_path / "a.jsonl", tmp_path / "run", "data.source=auto")))


@pytest.mark.slow
@pytest.mark.parametrize("group", [1, 5, 100])
def test_the_bytes_depend_neither_on_row_groups_nor_on_shards(tmp_path: Path, group: int) -> None:
    rows = [row(f"{number // 2}", picture(number), data_source="s") for number in range(9)]
    out = converted(write(tmp_path / "in/x.parquet", rows, group=group), tmp_path / "run", f"data.shard_size={group}")
    (tmp_path / "same").mkdir()
    expected = converted(write(tmp_path / "same/x.parquet", rows), tmp_path / "other")
    files = [path.relative_to(out) for path in sorted(out.rglob("*")) if path.is_file() and path.name != "hpcdata.json"]
    assert len(files) == 9 + 3
    assert all((out / name).read_bytes() == (expected / name).read_bytes() for name in files)


@pytest.mark.slow
def test_a_record_that_kills_is_rejected_by_its_id(tmp_path: Path) -> None:
    rows = [row(f"r{number}", picture(number, size=(30 + number, 16))) for number in range(7)]
    source = write(tmp_path / "in/x.parquet", rows)
    path = install(tmp_path / "site", "segfault", [rows[4]["image"]["bytes"]], where=CHECKING)
    run = tmp_path / "run"
    prepare(compose(arguments(source, run, "data.max_crashes=2")))
    run_until_done(run, path, 8)
    out = combine(run, CombineOptions()).target
    assert out is not None
    assert rejects(out) == {"r4": "crash"}
    assert [record["id"] for record in records(out)] == [f"r{number}" for number in range(7) if number != 4]


def test_what_a_retry_recovers_stands_where_it_belongs(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "c.jpg"):
        (tmp_path / "in" / name).write_bytes(JPEG)
    rows = [{"id": "same", "image": {"bytes": None, "path": f"{name}.jpg"}, "conversations": talk()} for name in "abc"]
    source = write(tmp_path / "in/x.parquet", rows)
    out = converted(source, tmp_path / "run")
    assert [record["image"] for record in records(out)] == ["image/same.jpg", "image/same~2.jpg"]
    (tmp_path / "in/b.jpg").write_bytes(JPEG)
    assert retry(tmp_path / "run").recovered == {"missing_image": 1}
    assert combine(tmp_path / "run", CombineOptions()).target == out
    assert [record["image"] for record in records(out)] == [
        "image/same.jpg",
        "image/same~1.jpg",
        "image/same~2.jpg",
    ]
    assert rejects(out) == {}
    assert problems_of(out) == []


def test_a_run_is_checked_and_proved_like_any_other(tmp_path: Path) -> None:
    source = write(tmp_path / "in/x.parquet", [row(f"{number}", picture(number)) for number in range(7)])
    converted(source, tmp_path / "run")
    assert [report.problems for report in verify(tmp_path / "run")] == [[], []]
    proof = prove(tmp_path / "run", 7, seed=0)
    assert (proof.equal, proof.differences) == (7, [])
    (stream,) = (tmp_path / "run").glob("shards/00001*/records/*.jsonl")
    stream.write_bytes(stream.read_bytes().replace(b"gradient", b"GRADIENT", 1))
    assert verify(tmp_path / "run")[0].problems


def test_rejects_of_other_stages_have_no_id(tmp_path: Path) -> None:
    """So the ledgers of older runs keep their bytes."""
    source = write(tmp_path / "in/x.parquet", [row("x", b"")])
    run = tmp_path / "run"
    prepare(compose(arguments(source, run, "stage=copy")))
    assert run_task(run, StopAfter()) is TaskOutcome.FINISHED  # type: ignore[arg-type]
    assert [reject.id for reject in rows_of(run)] == [""]
    assert '"id"' not in next(run.glob("shards/*/rejects.jsonl")).read_text()


def test_the_folder_says_what_was_done(tmp_path: Path) -> None:
    rows = [
        *(row(name, JPEG, talk("<image>"), data_source="s") for name in ("a", "a", "A")),
        row(None, JPEG, talk("<image><image>")),
        row("t", b"", HI),
        row("bad, id", b"nothing"),
    ]
    source = write(tmp_path / "in/a(b,c)+d.parquet", rows)
    out = converted(source, tmp_path / "run", "convert.prompt=recap", f"convert.out={tmp_path}/GeoQA+(MathV360K)")
    found = records(out)
    assert [record.get("image") for record in found] == [
        *("image/a.jpg", "image/a~1.jpg", "image/A~2.jpg", "image/000003.jpg"),
        None,
    ]
    assert rejects(out) == {"bad, id": "unreadable_image"}
    with open(out / "names.csv", newline="") as file:
        names = list(csv.DictReader(file))
    assert [(line["id"], line["row"], line["file"]) for line in names] == [
        *(("a", "0", "image/a.jpg"), ("a", "1", "image/a~1.jpg"), ("A", "2", "image/A~2.jpg")),
        ("", "3", "image/000003.jpg"),
    ]
    made = read_target(out)
    assert made.counts.describe() == "6 inputs = 5 written + 1 rejected + 0 duplicate"
    assert made.facts == {
        "records": 5,
        "pictures": 4,
        "renamed": 2,
        "notes": {"markers_unlike_pictures": 1, "prompts_put_in": 3, "empty_pictures_left_out": 1, "no_id": 1},
    }
    assert (out / "GeoQA+(MathV360K).json").exists()


def test_json_lines_are_the_same_records(tmp_path: Path) -> None:
    source = write(tmp_path / "in/x.parquet", [row(name, JPEG, data_source="s") for name in "abca"])
    out = converted(source, tmp_path / "run", "convert.json_name=x.jsonl")
    as_list = converted(source, tmp_path / "other")
    assert [json.loads(line) for line in (out / "x.jsonl").read_text().splitlines()] == records(as_list)


def test_nothing_written_is_an_empty_list(tmp_path: Path) -> None:
    out = converted(write(tmp_path / "in/x.parquet", [row("x", b"nothing")]), tmp_path / "run")
    assert records(out) == []
