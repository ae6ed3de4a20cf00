"""python -m pytest tests/sources/test_lines.py"""

import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.samples import BadSample, Reason
from hpcdata.sources import InputFile, Options, Scan, base, read, read_documents, scan
from hpcdata.sources.json_lines import lines
from hpcdata.sources.streams import chunks
from tests.selection import examples
from tests.sources.source_files import (
    caption,
    images,
    json_lines,
    keys,
    one_by_one,
    one_input,
    picture,
    read_all,
    summary,
    texts,
    write,
)

SUFFIXES = ["jsonl", "jsonl.gz", "jsonl.zst", "json.gz", "json.zst", "ndjson"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip(tmp_path, suffix):
    rows = [{"image": f"{number}.jpg", "text": caption(number)} for number in range(10)]
    for number in range(10):
        write(tmp_path / f"{number}.jpg", picture(number))
    records = read_all(one_input(write(tmp_path / f"x.{suffix}", json_lines(rows))))
    assert keys(records) == [f"x.{suffix}#{number}" for number in range(10)]
    assert summary(records) == [caption(number) for number in range(10)]
    assert [images(record) for record in records] == [[picture(number)] for number in range(10)]


def test_blank_lines_last_line_byte_order_mark_and_returns(tmp_path):
    data = b'\xef\xbb\xbf{"text": "a"}\r\n\n  \t\r\n{"text": "b"}\n\n{"text": "c"}'
    assert summary(read_all(one_input(write(tmp_path / "x.jsonl", data)), every=1)) == ["a", "b", "c"]


@pytest.mark.parametrize("data", [b"", b"\n\n", b" "])
def test_nothing(tmp_path, data):
    assert read_all(one_input(write(tmp_path / "x.jsonl", data))) == []


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_one_bad_line_is_one_reject(tmp_path, suffix):
    """UPSTREAM 13: neighbours stay, whatever the line."""
    bad = [
        b"{\n",
        b'{"text": "\xff"}\n',
        b"\0\n",
        b"[" * 5000 + b"\n",
        b'{"text": NaN\n',
        b'{"text": "' + b"x" * 9000 + b'"}\n',
    ]
    rows = [row for line in bad for row in (line, {"text": "good"})]
    records = read_all(
        one_input(write(tmp_path / f"x.{suffix}", json_lines(rows)), "text"), Options(max_record_bytes=8192)
    )
    assert summary(records)[1::2] == ["good"] * len(bad)
    assert summary(records)[::2] == [Reason.BAD_JSON] * 5 + [Reason.OVERSIZED_RECORD]


def test_text_rows_between_images(tmp_path):
    """UPSTREAM 12: a text-only row does not shift later images."""
    for number in range(6):
        write(tmp_path / f"{number}.jpg", picture(number))
    rows = [
        {"text": str(number)} if number % 3 == 1 else {"text": str(number), "image": f"{number}.jpg"}
        for number in range(6)
    ]
    records = read_all(one_input(write(tmp_path / "x.jsonl", json_lines(rows))))
    assert summary(records) == ["0", "1", "2", "3", "4", "5"]
    assert [images(record) for record in records] == [[picture(n)] if n % 3 != 1 else [] for n in range(6)]


def test_equal_ids_are_both_kept(tmp_path):
    """LLaVA-OneVision: equal ids overwrote each other."""
    rows = [{"id": "same", "conversations": [{"from": "gpt", "value": text}]} for text in ("a", "a", "b")]
    records = read_all(one_input(write(tmp_path / "x.jsonl", json_lines(rows))))
    assert summary(records) == ["a", "a", "b"]
    assert len(set(keys(records))) == 3


def test_missing_image_is_noticed_when_it_is_read(tmp_path):
    (record,) = read_all(one_input(write(tmp_path / "x.jsonl", json_lines([{"text": "a", "image": "none.jpg"}]))))
    with pytest.raises(BadSample) as caught:
        images(record)
    assert caught.value.reason == Reason.MISSING_IMAGE


@pytest.mark.parametrize("path", ["a\0b.jpg", "\udfff.jpg", "x" * 5000, "/dev/zero", "/"])
def test_hostile_image_paths(path):
    file = InputFile(path="", label="x", format="jsonl", base="/tmp")
    from hpcdata.sources import records

    (_, part) = records.sample_parts({"text": "a", "image": path}, file, Options())
    with pytest.raises(BadSample):
        part.blob.read(max_bytes=1 << 20)


@pytest.mark.parametrize("suffix", ["jsonl.gz", "jsonl.zst"])
@pytest.mark.parametrize("damage", ["cut", "flip", "tail"])
def test_broken_streams_keep_what_came_before(tmp_path, suffix, damage):
    path = write(tmp_path / f"x.{suffix}", json_lines({"text": f"{n} {zlib.crc32(b'%d' % n)}"} for n in range(20_000)))
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "flip":
        data[-1] ^= 0xFF
    else:
        data += b"garbage"
    path.write_bytes(data)
    file = one_input(path)
    found = scan(file, every=4096, options=Options())
    whole = summary(read(file, found, first=0, count=found.num_samples, options=Options()))
    assert whole[-1] == (Reason.TRUNCATED if damage == "cut" else Reason.DAMAGED_ARCHIVE)
    assert whole[:100] == [f"{n} {zlib.crc32(b'%d' % n)}" for n in range(100)]
    assert len(whole) > 5000
    if damage == "tail" or (suffix == "jsonl.gz" and damage == "flip"):
        assert len(whole) == 20_001


@pytest.mark.parametrize("suffix", ["jsonl.gz", "jsonl.zst"])
def test_streams_of_several_parts(tmp_path, suffix):
    path = write(tmp_path / f"x.{suffix}", json_lines([{"text": "a"}]))
    second = write(tmp_path / f"y.{suffix}", json_lines([{"text": "b"}])).read_bytes()
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" if suffix.endswith("zst") else bytes(8)
    path.write_bytes(path.read_bytes() + second + skippable)
    assert summary(read_all(one_input(path))) == ["a", "b"]


def test_decompression_bomb_is_one_reject(tmp_path):
    path = tmp_path / "x.jsonl.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(bytes(200 << 20)))
    assert path.stat().st_size < 1 << 16
    assert summary(read_all(one_input(path), Options(max_record_bytes=1 << 16))) == [Reason.OVERSIZED_RECORD]


def test_a_file_that_changed_is_refused(tmp_path):
    file = one_input(write(tmp_path / "x.jsonl", json_lines([{"text": "a"}] * 3)))
    found = scan(file, every=2, options=Options())
    write(tmp_path / "x.jsonl", json_lines([{"text": "a"}]))
    with pytest.raises(UserError, match=r"x\.jsonl ended after"):
        list(read(file, found, first=0, count=3, options=Options()))


def test_a_line_without_end_is_not_held():
    tracemalloc.start()
    ((_, line, problem),) = lines((b"x" * (1 << 20) for _ in range(100)), 0, 1 << 16)
    assert (line, problem.message) == (b"", "a line of 104857600 bytes, the limit is 65536")
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("size", [(3 << 20) - 1, 3 << 20, (3 << 20) + 1, (5 << 20) + 77])
@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_dense_streams_come_whole_and_in_pieces(tmp_path, suffix, size):
    path = write(tmp_path / f"x.{suffix}", b"x" * size)
    pieces = list(chunks(InputFile(path=str(path), label="x", format=f"text.{suffix}")))
    assert b"".join(pieces) == b"x" * size
    assert max(map(len, pieces)) <= 1 << 20


@pytest.mark.parametrize(
    ("position", "expected"), [(0, (0, 0)), (9, (0, 0)), (10, (10, 70)), (25, (20, 90)), (99, (20, 90))]
)
def test_reading_starts_from_the_nearest_cut(position, expected):
    assert Scan(num_samples=100, every=10, cuts=(0, 70, 90)).cut(position) == expected


@settings(max_examples=200, deadline=None)
@given(
    data=st.lists(st.sampled_from([b"\n", b" ", b"a", b"bcd", b"\r\n", b"x" * 9])).map(b"".join),
    sizes=st.lists(st.integers(1, 7), min_size=1),
    limit=st.integers(1, 12),
)
def test_lines_do_not_depend_on_chunks_or_limit(data, sizes, limit):
    pieces, start = [], 0
    while start < len(data):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[start : start + size])
        start += size
    expected, offset = [], 100
    for line in data.split(b"\n"):
        if line.strip():
            expected.append((offset, line if len(line) <= limit else b"", len(line) > limit))
        offset += len(line) + 1
    found = [(offset, line, problem is not None) for offset, line, problem in lines(iter(pieces), 100, limit)]
    assert found == expected


def test_texts_are_verbatim(tmp_path):
    text = "  zwei\nZeilen\t\u0085\u2028 "
    (record,) = read_all(one_input(write(tmp_path / "x.jsonl", json_lines([{"text": text}]))))
    assert texts(record) == [text]


ODD_LINES = [
    b"{",
    b"[1]",
    b"\xff",
    b"null",
    b" ",
    b'{"text": "a"}\r',
    b'{"text": ""}',
    b'{"text": " \\n"}',
    b'{"text": "a\\u0000b"}',
    b'{"text": "\\ud800"}',
    b'{"text": 7, "content": "b"}',
    b'{"text": null, "content": "c"}',
    b'{"other": "d", "id": 1}',
    b'{"text": "e", "image": "x.jpg"}',
    b'{"text": "f", "image": null, "conversations": []}',
    b'{"text": "g", "conversations": [1]}',
    b'{"text": "h", "text": "i"}',
    b'{"text": "' + b"x" * 300 + b'"}',
    b"[" * 3000,
    b'\xef\xbb\xbf{"text": "j"}',
]


@given(
    rows=st.lists(st.sampled_from(ODD_LINES) | st.text(max_size=9).map(lambda text: json_lines([{"text": text}])[:-1])),
    first=st.integers(0, 9),
    batch_size=st.integers(1, 5),
    field=st.sampled_from([None, "content", "other"]),
)
@example(rows=ODD_LINES, first=0, batch_size=4, field=None)
@settings(deadline=None, max_examples=examples(100))
def test_documents_in_bulk_are_the_records(tmp_path_factory, rows, first, batch_size, field):
    path = write(tmp_path_factory.mktemp("lines") / "x.jsonl.zst", b"\n".join(rows))
    file, options = one_input(path, "text"), Options(max_record_bytes=256, text_field=field)
    found = scan(file, every=3, options=options)
    first = min(first, found.num_samples)
    where = {"first": first, "count": found.num_samples - first}
    expected = list(read(file, found, **where, options=options))
    got = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "AT_ONCE", 1)
        for number, batch in enumerate(read_documents(file, found, **where, batch_size=batch_size, options=options)):
            assert one_by_one(batch) == expected[number * batch_size :][:batch_size]
            got += one_by_one(batch)
    assert got == expected


def test_a_batch_of_documents_is_large_enough_and_not_too_large(tmp_path):
    texts = ["a"] * 3000 + ["b" * 600_000] * 40
    file, options = (
        one_input(write(tmp_path / "x.jsonl", json_lines([{"text": text} for text in texts])), "text"),
        Options(),
    )
    found = scan(file, every=4096, options=options)
    batches = read_documents(file, found, first=0, count=found.num_samples, batch_size=16, options=options)
    assert [len(batch.texts) for batch in batches] == [1024, 1024, 960, 16, 16]


def test_documents_of_a_file_that_became_shorter(tmp_path, monkeypatch):
    file = one_input(write(tmp_path / "x.jsonl", json_lines([{"text": "a"}] * 5)), "text")
    monkeypatch.setattr(base, "AT_ONCE", 1)
    batches = read_documents(
        file, Scan(num_samples=9, every=9, cuts=(0,)), first=0, count=9, batch_size=4, options=Options()
    )
    assert len(next(batches).texts) == 4
    with pytest.raises(UserError, match="ended after 5 samples, the plan expects at least 9"):
        next(batches)
