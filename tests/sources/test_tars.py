"""python -m pytest tests/sources/test_tars.py"""

import gzip
import io
import struct
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.samples import BadSample, ImagePart, Reason, Reject, Sample, TextPart
from hpcdata.sources import Options, Scan, scan
from hpcdata.sources.tar.groups import split_name
from tests.sources.source_files import (
    caption,
    images,
    keys,
    one_input,
    pairs,
    picture,
    read_all,
    read_slice,
    summary,
    tar_bytes,
    texts,
    write,
    write_tar,
)

GOOD = [caption(number) for number in range(5)]
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz"])
@pytest.mark.parametrize("tar_format", FORMATS)
def test_round_trip(tmp_path, name, tar_format):
    records = read_all(one_input(write_tar(tmp_path / name, pairs(5), tar_format=tar_format)))
    assert keys(records) == [f"{name}/{number:04d}" for number in range(5)]
    assert [texts(record) for record in records] == [[caption(number)] for number in range(5)]
    assert [images(record) for record in records] == [[picture(number)] for number in range(5)]
    assert all(isinstance(record.parts[0], TextPart) and isinstance(record.parts[1], ImagePart) for record in records)


def test_what_webdataset_writes(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for number in range(5):
            writer.write({"__key__": f"d/{number}", "jpg": picture(number), "json": {"caption": caption(number)}})
    records = read_all(one_input(tmp_path / "a.tar"))
    assert summary(records) == GOOD
    assert keys(records)[0] == "a.tar/d/0"


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("length", [99, 100, 101, 155, 300, 5000])
def test_long_names(tmp_path, tar_format, length):
    name = "ü" + "x" * (length - 2)
    members = [(f"{name}.jpg", b"1"), (f"{name}.txt", b"one"), ("b.jpg", b"2"), ("b.txt", b"two")]
    records = read_all(one_input(write_tar(tmp_path / "a.tar", members, tar_format=tar_format)))
    assert keys(records) == [f"a.tar/{name}", "a.tar/b"]


def test_ustar_prefix_is_part_of_the_key(tmp_path):
    folder = "f" * 90
    members = [(f"{folder}/{'n' * 60}.jpg", b"1"), (f"{folder}/{'n' * 60}.txt", b"one")]
    records = read_all(one_input(write_tar(tmp_path / "a.tar", members, tar_format=tarfile.USTAR_FORMAT)))
    assert keys(records) == [f"a.tar/{folder}/{'n' * 60}"]


@pytest.mark.parametrize("size_field", [b"\x80" + (700).to_bytes(11, "big"), b"%o " % 700, b"   %o\0" % 700])
def test_sizes_as_old_and_big_writers_store_them(tmp_path, size_field):
    data = bytearray(tar_bytes(pairs(5)))
    data[124:136] = size_field.ljust(12, b"\0")
    _seal(data, 0)
    assert summary(read_all(one_input(write(tmp_path / "a.tar", bytes(data))))) == GOOD


def test_v7_header_without_magic_and_signed_checksum(tmp_path):
    data = bytearray(tar_bytes([("ü.jpg", picture(0)), ("ü.txt", b"one")]))
    data[257:512] = bytes(255)
    total = sum(struct.unpack("148b8x356b", data[:512])) + 256
    data[148:156] = b"%06o\0 " % total
    assert keys(read_all(one_input(write(tmp_path / "a.tar", bytes(data))))) == ["a.tar/ü"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", ("a", "jpg")),
        ("d.e/a.jpg", ("d.e/a", "jpg")),
        ("./a.JPG", ("a", "jpg")),
        ("a.seg.png", ("a", "seg.png")),
        ("d/.hidden.jpg", None),
        ("._a.jpg", None),
        ("README", None),
        ("d.e/README", None),
        ("__meta__/a.jpg", None),
        ("__a__.jpg", ("__a__", "jpg")),
    ],
)
def test_split_name(name, expected):
    assert split_name(name.encode()) == (expected and tuple(part.encode() for part in expected))


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("a.txt", b"text")], Reason.MISSING_IMAGE),
        ([("a.jpg", b"1")], Reason.MISSING_TEXT),
        ([("a.jpg", b"1"), ("a.cls", b"3")], Reason.MISSING_TEXT),
        ([("a.seg.jpg", b"1"), ("a.txt", b"text")], Reason.MISSING_IMAGE),  # a mask is no picture
        ([("a.jpg", b"1"), ("a.txt", b" \n")], Reason.EMPTY_TEXT),
        ([("a.jpg", b"1"), ("a.txt", b"a\xff")], Reason.UNREADABLE_TEXT),
        ([("a.jpg", b"1"), ("a.txt", b"a\0b")], Reason.UNREADABLE_TEXT),
        ([("a.jpg", b"1"), ("a.txt", b"x" * 5000)], Reason.OVERSIZED_TEXT),
        ([("a.jpg", b"1"), ("a.json", b"{")], Reason.BAD_JSON),
        ([("a.jpg", b"1"), ("a.json", b"[" * 100_0)], Reason.BAD_JSON),
        ([("a.jpg", b"1"), ("a.json", b'{"caption": NaN}')], Reason.BAD_RECORD),
        ([("a.jpg", b"1"), ("a.json", b'{"caption": "\\ud800"}')], Reason.UNREADABLE_TEXT),
        ([("a.jpg", b"1"), ("a.json", b'"text"')], Reason.BAD_RECORD),
        ([("a.jpg", b"1"), ("a.json", b'{"caption": 3}')], Reason.BAD_RECORD),
        ([("a.jpg", b"1"), ("a.json", b'{"caption": null}')], Reason.MISSING_TEXT),
    ],
)
@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_one_bad_sample_is_one_reject(tmp_path, members, reason, suffix):
    """UPSTREAM 13: its neighbours stay."""
    everything = [*pairs(1), *members, *pairs(1, first=1)]
    records = read_all(one_input(write_tar(tmp_path / f"x.{suffix}", everything)), Options(max_record_bytes=4096))
    assert summary(records) == [caption(0), reason, caption(1)]
    assert keys(records)[1] == f"x.{suffix}/a"
    assert str(tmp_path) not in records[1].message


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
@pytest.mark.parametrize(("size", "reason"), [(0, Reason.EMPTY_IMAGE), (5000, Reason.OVERSIZED_IMAGE)])
def test_image_limits(tmp_path, suffix, size, reason):
    path = write_tar(tmp_path / f"x.{suffix}", [("a.jpg", bytes(size)), ("a.txt", b"text")])
    (record,) = read_all(one_input(path), Options(max_record_bytes=4096))
    if isinstance(record, Reject):
        assert record.reason == reason
    else:
        with pytest.raises(BadSample) as caught:
            record.parts[1].blob.read(max_bytes=4096)
        assert caught.value.reason == reason


def test_members_of_a_gzipped_sample_are_held_within_one_limit(tmp_path):
    path = write_tar(tmp_path / "x.tar.gz", [("a.jpg", bytes(3000)), ("a.txt", b"x" * 3000), *pairs(1, size=3000)])
    assert summary(read_all(one_input(path), Options(max_record_bytes=4096))) == [Reason.OVERSIZED_TEXT, caption(0)]


def test_order_of_text_members(tmp_path):
    members = [
        *[("a.json", b'{"caption": "from json"}'), ("a.jpg", b"1"), ("a.caption", b"c"), ("a.text", b"t")],
        *[("b.json", b'{"caption": "c", "text": "t", "text_prompt": "p", "title": "z"}'), ("b.jpg", b"1")],
    ]
    file = one_input(write_tar(tmp_path / "x.tar", members))
    assert summary(read_all(file)) == ["t", "p"]
    assert summary(read_all(file, Options(text_field="caption"))) == ["c", "c"]
    assert summary(read_all(file, Options(text_field="title"))) == [Reason.MISSING_TEXT, "z"]


def test_sides_that_are_not_needed_are_not_missed(tmp_path):
    file = one_input(write_tar(tmp_path / "x.tar", [("a.txt", b"text"), ("b.jpg", b"1")]))
    assert summary(read_all(file, Options(needs_image=False))) == ["text", Reason.MISSING_TEXT]
    records = read_all(file, Options(needs_text=False))
    assert summary(records) == [Reason.MISSING_IMAGE, ""]
    assert images(records[1]) == [b"1"]


def test_repeated_keys(tmp_path):
    """Equal keys are both kept, equal samples once."""
    again = [("0000.jpg", picture(9)), ("0000.txt", b"other")]
    third = [("0000.jpg", picture(8)), ("0000.txt", b"third")]
    members = [
        *pairs(2),
        *pairs(1),
        *again,
        *pairs(1, first=1),
        *again,
        *third,
        ("0000#2.jpg", b"1"),
        ("0000#2.txt", b"x"),
    ]
    for name in ("x.tar", "x.tar.gz"):
        records = read_all(one_input(write_tar(tmp_path / name, members)))
        assert summary(records) == [GOOD[0], GOOD[1], "duplicate", "other", "duplicate", "duplicate", "third", "x"]
        written = [record.key for record in records if isinstance(record, Sample)]
        assert written == [f"{name}/{key}" for key in ("0000", "0001", "0000#2", "0000#3", "0000#2#2")]


def test_a_suffix_that_is_taken(tmp_path):
    members = [("a#2.jpg", b"1"), ("a#2.txt", b"x"), ("a.jpg", b"2"), ("a.txt", b"y"), ("b.txt", b"")]
    members += [("a.jpg", b"3"), ("a.txt", b"z")]
    records = read_all(one_input(write_tar(tmp_path / "x.tar", members)))
    assert keys(records) == ["x.tar/a#2", "x.tar/a", "x.tar/b", "x.tar/a#3"]


def test_same_sample_twice_in_a_row_is_two(tmp_path):
    assert summary(read_all(one_input(write_tar(tmp_path / "x.tar", [*pairs(1), *pairs(1)])))) == [GOOD[0], "duplicate"]


def test_hostile_members_are_labels_at_most(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("/abs/a", "../../up/b", "c\x1b[31m\n", "good"):
            for extension, data in (("jpg", b"1"), ("txt", name.encode())):
                info = tarfile.TarInfo(f"{name}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("link.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("folder.jpg")
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
        info = tarfile.TarInfo("link.txt")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"text"))
    records = read_all(one_input(write(tmp_path / "x.tar", buffer.getvalue())))
    assert keys(records)[:4] == ["x.tar/abs/a", "x.tar/__/__/up/b", "x.tar/c\\x1b[31m\\n", "x.tar/good"]
    assert keys(records)[4:] == ["x.tar/link", "x.tar/link#2"]
    assert {record.reason for record in records[4:]} == {Reason.BAD_RECORD}
    assert records[4].message == "link.jpg is stored as a link to /etc/passwd, which is no file of this archive"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.tar"]


def test_sparse_members_are_rejected(tmp_path):
    data = bytearray(tar_bytes([*pairs(1), ("s.jpg", b"x" * 600), ("s.txt", b"sparse"), *pairs(1, first=1)]))
    start = data.index(b"s.jpg")
    data[start + 156] = ord("S")
    _seal(data, start)
    records = read_all(one_input(write(tmp_path / "x.tar", bytes(data))))
    assert summary(records) == [GOOD[0], Reason.BAD_RECORD, GOOD[1]]


@pytest.mark.parametrize("tar_format", FORMATS)
def test_damaged_header_loses_its_member_only(tmp_path, tar_format):
    data = bytearray(tar_bytes(pairs(5), tar_format=tar_format))
    start = data.index(b"0002.jpg")
    data[start + 3] ^= 0xFF
    records = read_all(one_input(write(tmp_path / "x.tar", bytes(data))))
    assert summary(records) == [*GOOD[:2], Reason.DAMAGED_ARCHIVE, Reason.MISSING_IMAGE, *GOOD[3:]]
    assert records[2].key == f"x.tar@{start}"


@pytest.mark.parametrize("fill", [b"\0", b"\xaa"])
def test_overwritten_region_is_one_reject(tmp_path, fill):
    data = bytearray(tar_bytes(pairs(5)))
    start, end = data.index(b"0001.jpg"), data.index(b"0003.jpg")
    data[start:end] = fill * (end - start)
    records = read_all(one_input(write(tmp_path / "x.tar", bytes(data))), every=2)
    assert summary(records) == [GOOD[0], Reason.DAMAGED_ARCHIVE, *GOOD[3:]]


def test_joined_archives_lose_nothing(tmp_path):
    data = tar_bytes(pairs(2)) + tar_bytes(pairs(3, first=2))
    assert summary(read_all(one_input(write(tmp_path / "x.tar", data)))) == GOOD


@pytest.mark.parametrize("data", [b"", bytes(512), bytes(10240), bytes(700)])
def test_archives_of_nothing(tmp_path, data):
    assert read_all(one_input(write(tmp_path / "x.tar", data))) == []


@pytest.mark.parametrize("data", [b"no tar at all", b"no tar at all" * 1000])
def test_garbage_is_one_reject(tmp_path, data):
    (record,) = read_all(one_input(write(tmp_path / "x.tar", data)))
    assert record.reason in (Reason.DAMAGED_ARCHIVE, Reason.TRUNCATED)


@pytest.mark.parametrize(
    ("cut_at", "expected"),
    [
        (lambda data: data.index(b"0002.txt") + 512 + 3, [*GOOD[:2], Reason.TRUNCATED]),
        (lambda data: data.index(b"0002.jpg") + 512 + 3, [*GOOD[:2], Reason.TRUNCATED]),
        (lambda data: data.index(b"0002.jpg") + 100, [*GOOD[:2], Reason.TRUNCATED]),
        (lambda data: data.index(b"0003.jpg"), GOOD[:3]),
    ],
)
def test_file_cut_short(tmp_path, cut_at, expected):
    data = tar_bytes(pairs(5))
    assert summary(read_all(one_input(write(tmp_path / "x.tar", data[: cut_at(data)])))) == expected


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
@pytest.mark.parametrize("cut", [600, 512 + 5000, 512 + 5000 + 300])
def test_file_cut_inside_what_is_no_sample(tmp_path, suffix, cut):
    """The README, the header of a long name: nobody knows what came behind."""
    data = tar_bytes([*pairs(1), ("README", bytes(4000)), ("x" * 5000 + ".jpg", b"1")])
    start = data.index(b"README") if cut == 600 else data.index(b"././@LongLink")
    path = write(tmp_path / f"x.{suffix}", data[: start + cut])
    assert summary(read_all(one_input(path), every=1)) == [GOOD[0], Reason.TRUNCATED]


def test_an_endless_name_is_damage(tmp_path):
    members = [*pairs(1), ("x" * (2 << 20) + ".jpg", b"1"), *pairs(1, first=1)]
    records = read_all(one_input(write_tar(tmp_path / "x.tar", members)))
    assert summary(records)[:2] == [GOOD[0], Reason.DAMAGED_ARCHIVE]
    assert summary(records)[-1] == GOOD[1]


def test_gzip_that_is_cut_short_keeps_what_came_before(tmp_path):
    data = gzip.compress(tar_bytes(pairs(40)), 0)
    (tmp_path / "x.tar.gz").write_bytes(data[: len(data) // 2])
    records = read_all(one_input(tmp_path / "x.tar.gz"))
    assert summary(records) == [*(caption(number) for number in range(len(records) - 1)), Reason.TRUNCATED]
    assert len(records) > 10


def test_gzip_that_is_damaged_keeps_what_came_before(tmp_path):
    data = bytearray(gzip.compress(tar_bytes(pairs(5)), mtime=0))
    data[-6] ^= 0xFF  # the checksum at the end: only there is it seen
    (tmp_path / "x.tar.gz").write_bytes(data)
    records = read_all(one_input(tmp_path / "x.tar.gz"))
    assert summary(records) == [*GOOD, Reason.DAMAGED_ARCHIVE]


def test_a_file_that_changed_is_refused(tmp_path):
    file = one_input(write_tar(tmp_path / "x.tar", pairs(5)))
    found = scan(file, every=2, options=Options())
    write_tar(tmp_path / "x.tar", pairs(3))
    with pytest.raises(UserError, match=r"x\.tar ended after 3 samples"):
        read_slice(file, found, 0, 5, Options())


NAMES = st.sampled_from(["a", "b", "c/d", "e" * 90 + "/" + "f" * 60, "ü"])
EXTENSIONS = st.sampled_from(["jpg", "txt", "json", "bin", ""])
MEMBERS = st.lists(
    st.tuples(st.tuples(NAMES, EXTENSIONS).map(".".join), st.binary(max_size=1500)), min_size=1, max_size=12
)
DAMAGE = st.lists(st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=1024)), max_size=3)


@settings(max_examples=150, deadline=None)
@given(
    members=MEMBERS,
    tar_format=st.sampled_from(FORMATS),
    damage=DAMAGE,
    cut=st.none() | st.integers(0, 20_000),
    is_gzip=st.booleans(),
    every=st.integers(1, 5),
    split=st.integers(0, 12),
)
def test_any_split_reads_the_same_records(tmp_path_factory, members, tar_format, damage, cut, is_gzip, every, split):
    data = bytearray(tar_bytes(members, tar_format=tar_format))
    for block, garbage in damage:
        data[block * 512 : block * 512 + len(garbage)] = garbage[: max(len(data) - block * 512, 0)]
    path = tmp_path_factory.getbasetemp() / ("any.tar.gz" if is_gzip else "any.tar")
    stored = gzip.compress(bytes(data), mtime=0) if is_gzip else bytes(data)
    path.write_bytes(stored if cut is None else stored[:cut])
    file, options = one_input(path), Options(max_record_bytes=1200)
    whole = read_all(file, options, every=every)
    found = scan(file, every=every, options=options)
    split = min(split, len(whole))
    assert read_slice(file, found, 0, split, options) == whole[:split]
    assert read_slice(file, found, split, len(whole) - split, options) == whole[split:]
    assert len(set(keys(record for record in whole if isinstance(record, Sample)))) == sum(
        isinstance(record, Sample) for record in whole
    )
    if not damage and cut is None:
        assert not any(
            isinstance(record, Reject) and record.reason in (Reason.DAMAGED_ARCHIVE, Reason.TRUNCATED)
            for record in whole
        )


def _seal(data: bytearray, start: int) -> None:
    """Makes the checksum of a changed header right."""
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])


def scanned(tmp_path, members, suffix="tar", end=True):
    data = tar_bytes(members)
    if not end:
        data = data.rstrip(b"\0") + bytes(-len(data.rstrip(b"\0")) % 512)
    path = tmp_path / f"odd.{suffix}"
    path.write_bytes(data if suffix == "tar" else gzip.compress(data, mtime=0))
    file = one_input(path)
    return scan(file, every=4, options=Options()).num_samples


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_an_archive_without_its_end_is_a_warning_with_the_count(tmp_path, caplog, suffix):
    assert scanned(tmp_path, pairs(5), suffix, end=False) == 5
    assert "has no end mark" in caplog.text
    assert "the 5 that it holds" in caplog.text
    caplog.clear()
    assert scanned(tmp_path, pairs(5), suffix) == 5
    assert not caplog.text


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_members_that_are_not_adjacent_are_one_warning(tmp_path, caplog, suffix):
    scanned(tmp_path, sorted(pairs(4), key=lambda item: item[0].partition(".")[2]), suffix)
    assert "members of 4 samples are not adjacent, as of 0000" in caplog.text
    assert "tar --sort=name" in caplog.text
    assert len(caplog.records) == 1
    caplog.clear()
    scanned(tmp_path, [*pairs(2), *pairs(2, size=9)], suffix)  # keys that come again, but whole
    scanned(tmp_path, [("a.txt", b"1"), ("b.txt", b"2"), ("a.txt", b"3")])
    assert not caplog.text


DOTTED = [(f"d.0/22.{number:02d}.{kind}", b"x%d" % number) for number in (5, 6) for kind in ("png", "txt")]


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_names_with_dots_end_at_their_last_dot(tmp_path, caplog, suffix):
    file = one_input(write_tar(tmp_path / f"a.{suffix}", [*DOTTED, ("7.1.png", b"7"), ("7.1.json", b'{"text": "7"}')]))
    records = read_all(file)
    assert keys(records) == [f"a.{suffix}/{name}" for name in ("d.0/22.05", "d.0/22.06", "7.1")]
    assert summary(records) == ["x5", "x6", "7"]
    assert [images(record) for record in records] == [[b"x5"], [b"x6"], [b"7"]]
    assert scan(file, every=9, options=Options()).rules == ("last_dot",)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_dots_in_stems_are_named_where_other_samples_end_at_the_first(tmp_path, caplog):
    extra = [("a.jpg", b"1"), ("a.seg.png", b"1"), ("a.txt", b"1")]
    scanned(tmp_path, [*DOTTED, *extra])
    assert "1 samples are several with dots in their names, such as d.0/22.05, d.0/22.06" in caplog.text
    caplog.clear()
    scanned(tmp_path, [("a.jpg", b"1"), ("a.seg.png", b"1"), ("a.seg.txt", b"1"), ("a.b.png", b"1"), ("a.b.txt", b"1")])
    scanned(tmp_path, [("s0.input.jpg", b"1"), ("s0.outputs.txt", b"text")])
    assert not caplog.text


MANY_PARTS = [("s0.input.jpg", b"1"), ("s0.outputs.txt", b"text"), ("s0.mask.png", b"2")]


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
@pytest.mark.parametrize(
    ("field", "expected"), [("input.jpg", b"1"), ("input", b"1"), ("MASK.png", b"2"), ("mask", b"2")]
)
def test_a_picture_is_chosen_among_members_with_several_dots(tmp_path, suffix, field, expected):
    file = one_input(write_tar(tmp_path / f"a.{suffix}", MANY_PARTS))
    (record,) = read_all(file, Options(text_field="outputs.txt", image_field=field))
    assert (texts(record), images(record)) == (["text"], [expected])


def test_a_picture_that_was_chosen_and_is_not_there(tmp_path):
    file = one_input(write_tar(tmp_path / "a.tar", [*MANY_PARTS, *pairs(1)]))
    one, other = read_all(file, Options(text_field="outputs.txt", image_field="depth"))
    assert one.message == "no .depth among .input.jpg, .outputs.txt, .mask.png"
    assert (one.reason, other.reason) == (Reason.MISSING_IMAGE, Reason.MISSING_IMAGE)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_pictures_of_all_formats_and_without_a_telling_ending(tmp_path, suffix):
    png, heic = b"\x89PNG\r\n\x1a\n" + bytes(60), b"\0\0\0\x18ftypheic" + bytes(60)
    members = [("a.qoi", b"1"), ("b.JXL", b"2"), ("c.img", png), ("d.bin", heic), ("e.bin", b"words"), ("f.npy", png)]
    members = [item for name, data in members for item in ((name, data), (f"{name[0]}.txt", name.encode()))]
    file = one_input(write_tar(tmp_path / f"a.{suffix}", members))
    records = read_all(file)
    assert summary(records) == ["a.qoi", "b.JXL", "c.img", "d.bin", "missing_image", "missing_image"]
    assert [images(record)[0] for record in records[:4]] == [b"1", b"2", png, heic]
    assert scan(file, every=9, options=Options()).rules == ("pictures",)


def test_a_plan_that_says_nothing_of_rules_reads_an_odd_archive_as_before(tmp_path):
    """Links are no members, names end at the first dot, pictures have the usual endings."""
    members = [*DOTTED, ("a.qoi", b"1"), ("a.txt", b"1"), *pairs(1)]
    file = tar_with_links(tmp_path / "a.tar", [*members, linked("b.jpg", "a.qoi"), linked("b.txt", "a.txt")])
    older = Scan(num_samples=3, every=9, cuts=(0,))
    records = read_slice(file, older, 0, 3, Options())
    assert summary(records) == ["missing_image", "missing_image", caption(0)]
    assert older.identity() == {"num_samples": 3, "every": 9, "cuts": (0,), "repeats": (), "duplicates": ()}
    assert scan(file, every=9, options=Options()).num_samples == 5


def linked(name, target, kind=tarfile.LNKTYPE):
    link = tarfile.TarInfo(name)
    link.type, link.linkname = kind, target
    return link


def tar_with_links(path, members, tar_format=tarfile.GNU_FORMAT):
    """members: (name, bytes), or a link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for item in members:
            if isinstance(item, tarfile.TarInfo):
                tar.addfile(item)
                continue
            info = tarfile.TarInfo(item[0])
            info.size = len(item[1])
            tar.addfile(info, io.BytesIO(item[1]))
    data = buffer.getvalue()
    path.write_bytes(data if path.suffix == ".tar" else gzip.compress(data, mtime=0))
    return one_input(path)


@pytest.mark.parametrize("tar_format", FORMATS)
def test_links_are_followed_inside_the_archive(tmp_path, caplog, tar_format):
    """Of a folder in which equal files are hard links every sample is read, as `tar tf` counts them."""
    deep = "folder/" + "x" * (60 if tar_format == tarfile.USTAR_FORMAT else 150)
    members = [
        *((f"{deep}.jpg", b"deep"), (f"{deep}.txt", b"deep"), *pairs(1)),
        *(("1.jpg", b"one"), linked("1.txt", "0000.txt")),
        *(linked("2.jpg", "./1.jpg"), linked("2.txt", deep + ".txt")),
        *(linked("s/3.jpg", "../4.jpg", tarfile.SYMTYPE), linked("s/3.txt", "../2.txt", tarfile.SYMTYPE)),
        *(("4.jpg", b"four"), ("4.txt", b"four")),
    ]
    file = tar_with_links(tmp_path / "a.tar", members, tar_format)
    records = read_all(file)
    assert keys(records) == [f"a.tar/{name}" for name in (deep, "0000", "1", "2", "s/3", "4")]
    assert summary(records) == ["deep", caption(0), caption(0), "deep", "deep", "four"]
    expected = [b"deep", picture(0), b"one", b"one", b"four", b"four"]
    assert [images(record) for record in records] == [[data] for data in expected]
    assert scan(file, every=9, options=Options()).rules == ("with_links",)
    assert "stored as links" not in caplog.text


@pytest.mark.parametrize(
    ("suffix", "target", "kind", "why"),
    [
        ("tar", "gone.jpg", tarfile.LNKTYPE, "gone.jpg, which is no file of this archive"),
        ("tar", "../../0000.jpg", tarfile.SYMTYPE, "../../0000.jpg, which is no file of this archive"),
        ("tar", "a.jpg", tarfile.SYMTYPE, "a.jpg, which is no file of this archive"),
        ("tar.gz", "0000.jpg", tarfile.LNKTYPE, "0000.jpg, which is not followed in a gzipped tar"),
    ],
)
def test_a_link_that_cannot_be_followed_is_a_reject_by_that_reason(tmp_path, caplog, suffix, target, kind, why):
    members = [*pairs(1), linked("a.jpg", target, kind), ("a.txt", b"text"), linked("0000.seg.png", "gone")]
    records = read_all(tar_with_links(tmp_path / f"a.{suffix}", members[:3] + members[4:] + members[3:4]))
    assert records[0].parts
    bad = [record for record in records if isinstance(record, Reject)]
    assert f"a.jpg is stored as a link to {why}" in [record.message for record in bad]
    assert "stored as links that cannot be followed in it" in caplog.text


def test_links_with_one_key_are_told_apart_by_what_they_hold(tmp_path):
    members = [*pairs(2), ("a.txt", b"a"), linked("a.jpg", "0000.jpg"), ("b.txt", b"b"), ("b.jpg", b"b")]
    again = [("a.txt", b"a"), linked("a.jpg", "0001.jpg"), ("c.txt", b"c"), ("c.jpg", b"c")]
    same = [("a.txt", b"a"), linked("a.jpg", "0000.jpg")]
    records = read_all(tar_with_links(tmp_path / "a.tar", [*members, *again, *same]))
    assert keys(records)[2:] == ["a.tar/a", "a.tar/b", "a.tar/a#2", "a.tar/c", "a.tar/a"]
    assert summary(records)[-1] == "duplicate"


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_links_that_lead_nowhere_are_counted_once(tmp_path, caplog, suffix):
    links = [linked("0000.seg.png", "gone.jpg"), linked("9.jpg", "gone.jpg", tarfile.SYMTYPE)]
    file = tar_with_links(tmp_path / f"links.{suffix}", [*pairs(2), *pairs(1), *links])  # 0000 is read again
    scan(file, every=4, options=Options())
    assert "2 members are stored as links" in caplog.text
    assert "--hard-dereference" in caplog.text
