"""JPEGs that are walked over, beside libjpeg's two users.   python -m pytest tests/native/test_jpegs.py"""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from hpcdata.native import compiled, jpegs
from tests.media.pictures import encoded, noisy
from tests.selection import examples

WRITTEN = {
    f"{mode}, {width} x {height}, {quality}, {options}": encoded(
        noisy(width, height, mode), "JPEG", quality=quality, **options
    )
    for mode, more in (
        ("L", ()),
        ("RGB", ({"subsampling": "4:4:4"}, {"subsampling": "4:2:2"}, {"keep_rgb": True})),
    )
    for options in ({}, {"optimize": True}, {"restart_marker_blocks": 3}, *more)
    for width, height in ((1, 1), (17, 33), (120, 90))
    for quality in (10, 90, 100)
}
SMALL = [data for name, data in WRITTEN.items() if "17 x 33" in name]
IN_METADATA = re.compile("unknown JFIF revision|Unknown Adobe color transform")
"""Warnings that change nothing of what is decoded."""


@pytest.fixture(scope="module")
def loops() -> jpegs.Loops:
    found = jpegs.loops()
    assert found is not None, "the compiled check is not there: install hpcdata again"
    return found


def test_what_encoders_write_is_known_by_its_size(loops: jpegs.Loops) -> None:
    for name, data in WRITTEN.items():
        with Image.open(io.BytesIO(data)) as image:
            assert loops.walk(data) == (*image.size, len(image.getbands())), name
            assert loops.walk(data + b"more") == loops.walk(data)


def test_what_is_cut_or_of_another_kind_is_not_known(loops: jpegs.Loops) -> None:
    for data in SMALL:
        assert not any(loops.walk(data[:size]) for size in range(len(data)))
        assert loops.walk(data[:-2] + b"\x12\xff\xd9") is None
        assert loops.walk(data[:-2] + b"\xff\xd0\xff\xd9") is None
    for mode, options in (("RGB", {"progressive": True}), ("CMYK", {})):
        assert loops.walk(encoded(noisy(17, 33, mode), "JPEG", **options)) is None


@given(
    data=st.sampled_from(SMALL),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255), st.booleans()), max_size=3),
)
@example(data=SMALL[0], changes=[(0.5, 0xFF, False)])
@settings(max_examples=examples(300), deadline=None)
def test_what_is_known_is_decoded_without_a_complaint(
    data: bytes, changes: list[tuple[float, int, bool]], loops: jpegs.Loops
) -> None:
    """Of changed bytes, more of them in the header than elsewhere."""
    simplejpeg = pytest.importorskip("simplejpeg")
    changed = bytearray(data)
    for place, value, is_in_header in changes:
        end = data.index(b"\xff\xda") + 14 if is_in_header else len(data)
        changed[2 + int(place * (end - 2))] = value
    if (found := loops.walk(bytes(changed))) is None:
        return
    with Image.open(io.BytesIO(changed)) as image:
        image.load()
        assert (*image.size, len(image.getbands())) == found
    try:
        simplejpeg.decode_jpeg(bytes(changed), colorspace="GRAY" if found[2] == 1 else "RGB", strict=True)
    except ValueError as error:
        if not IN_METADATA.search(str(error)):
            raise


@given(st.binary(max_size=60).map(lambda data: bytes(byte % 3 for byte in data)), st.sampled_from([b"\0\1", b"\1\1\1"]))
def test_marks_are_counted_as_python_counts_them(data: bytes, mark: bytes) -> None:
    found = jpegs.loops()
    assert found is not None
    assert found.count(data, mark) == data.count(mark)


def test_it_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCDATA_KERNELS", "0")
    jpegs.loops.cache_clear()
    try:
        assert compiled.built("_jpegs") is None
        assert jpegs.loops() is None
    finally:
        jpegs.loops.cache_clear()
