"""Tars of samples are those of the webdataset library, byte by byte.   pytest tests/stages/test_tars.py"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.stages.copy.tars import by_library, sample_bytes
from tests.selection import examples

NAME = st.one_of(
    st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=110),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40),
    st.sampled_from(["a/b/000000017", "a" * 96, "a" * 97, "a" * 98, "/x", "a ", "a/", "..", "x" * 300]),
)
EXTENSION = st.sampled_from(["jpg", "json", "txt", "0.jpg", "1.jpg", "depth.npy", "_meta"])


@settings(max_examples=examples(150), deadline=None)
@given(key=NAME, members=st.dictionaries(EXTENSION, st.binary(max_size=1100), min_size=1))
def test_any_sample_is_what_the_library_writes(key: str, members: dict[str, bytes]) -> None:
    assert sample_bytes(key, members) == by_library(key, members)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 70_000])
def test_sizes_around_blocks_are_read_back(size: int) -> None:
    data = bytes(index % 251 for index in range(size))
    with tarfile.open(fileobj=io.BytesIO(sample_bytes("a", {"bin": data, "txt": b"x"}) + bytes(1024))) as tar:
        assert [(item.name, tar.extractfile(item).read()) for item in tar] == [("a.bin", data), ("a.txt", b"x")]


def test_usual_names_load_no_library_that_takes_seconds() -> None:
    code = (
        "import sys; from hpcdata.stages.copy.tars import sample_bytes; sample_bytes('a', {'txt': b'x'}); "
        "assert not {'torch', 'webdataset'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
