"""python -m pytest tests/sources/test_json_array.py"""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.samples import Reason
from hpcdata.sources import InputFile
from hpcdata.sources.json.array import flatten_json
from tests.selection import examples
from tests.sources.source_files import one_input, read_all, summary, write

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@settings(max_examples=examples(80), deadline=None)
@given(rows=st.lists(JSON), indent=st.none() | st.integers(0, 3), ascii=st.booleans(), size=st.integers(1, 40))
def test_elements_survive_any_chunking(tmp_path_factory, rows, indent, ascii, size):
    folder = tmp_path_factory.getbasetemp()
    data = json.dumps(rows, indent=indent, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hpcdata.sources.streams.CHUNK_BYTES", size)
        file = InputFile(path=str(write(folder / "any.json", data)), label="any.json", format="array")
        assert flatten_json(file, str(folder / "any.jsonl")) == len(rows)
    lines = (folder / "any.jsonl").read_bytes().decode("utf-8", "surrogatepass").split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == rows


@pytest.mark.parametrize("suffix", ["json", "json.gz", "json.zst"])
def test_read_as_samples_relative_to_the_original(tmp_path, suffix):
    write(tmp_path / "a.jpg", b"picture")
    rows = [{"image": "a.jpg", "conversations": [{"from": "gpt", "value": "<image>\nHi"}]}, {"text": "b"}]
    records = read_all(one_input(write(tmp_path / f"x.{suffix}", json.dumps(rows, indent=1).encode())))
    assert summary(records) == ["\nHi", "b"]
    assert records[0].parts[0].blob.read(max_bytes=100) == b"picture"
    assert records[0].key == f"x.{suffix}#0"


def test_bad_elements_are_rejects_and_a_cut_array_keeps_the_rest(tmp_path):
    data = b'\xef\xbb\xbf [{"text": "a"}, {"text": oops}, 3,\n {"text": "b\\"]},"}, {"text": "c'
    records = read_all(one_input(write(tmp_path / "x.json", data)))
    assert summary(records) == ["a", Reason.BAD_JSON, Reason.BAD_RECORD, 'b"]},', Reason.BAD_JSON]


@pytest.mark.parametrize("end", [b"", b",", b" , \n", b', {"text": "b"}'])
def test_an_array_that_is_cut_between_two_elements_ends_in_a_reject(end, tmp_path):
    """The account said that all was there."""
    records = read_all(one_input(write(tmp_path / "x.json", b'[{"text": "a"}' + end)))
    texts = ["a", "b"] if b"b" in end else ["a"]
    assert summary(records) == [*texts, Reason.TRUNCATED]
    assert records[-1].message.startswith("the array does not end")


@pytest.mark.parametrize("data", [b"[]", b" [ ] \n", b"[,]"])
def test_no_elements(tmp_path, data):
    assert read_all(one_input(write(tmp_path / "x.json", data))) == []


@pytest.mark.parametrize("data", [b'[{"text": "a"}] [{"text": "b"}]', b'[{"text": "a"}]]'])
def test_more_than_an_array_is_refused(tmp_path, data):
    with pytest.raises(UserError, match="goes on behind"):
        one_input(write(tmp_path / "x.json", data))
