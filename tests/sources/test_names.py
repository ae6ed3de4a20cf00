"""Names of files that are made of ids.   pytest tests/sources/test_names.py"""

from __future__ import annotations

import os
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hpcdata.sources.pictures.names import MOST_BYTES, key_of, names_of, stem_of

ANY = st.text(st.characters(exclude_categories=("Cs",)), max_size=300)


@pytest.mark.parametrize(
    ("given_id", "stem"),
    [
        ("000000033471", "000000033471"),
        (17, "17"),
        ("coco/train2017/0001", "coco_train2017_0001"),
        ("..", "__"),
        ("../x", "___x"),
        (".hidden", "_hidden"),
        ("-rf", "_rf"),
        ("a b\n\0~*?:|<>\"'\\", "a_b____________"),
        ("GeoQA+(MathV360K)", "GeoQA__MathV360K_"),
        ("그림 1", "그림_1"),
        ("x.jpg", "x.jpg"),
        ("a" * 500, "a" * MOST_BYTES),
        ("", "000003"),
        (None, "000003"),
        (0, "0"),
    ],
)
def test_names_of_ids(given_id: object, stem: str) -> None:
    assert stem_of(given_id, 3) == stem


@settings(max_examples=60, deadline=None)
@given(ANY)
@example("\u0130" * 90)
@example("\uac00" * 61)
@example("\U0001f600/..\\")
def test_a_name_is_one_part_of_a_path_that_fits_and_stays_as_it_is(text: str) -> None:
    stem = stem_of(text, 0)
    assert stem
    assert len(os.fsencode(stem)) <= MOST_BYTES
    assert not set(stem) & set("/\\\0~ *?\n:")
    assert stem[0] not in ".-"
    assert stem.isprintable() or not text.isprintable()
    assert stem_of(stem, 0) == stem
    assert os.path.normpath(os.path.join("/folder", stem)) == f"/folder/{stem}"


@settings(max_examples=60, deadline=None)
@given(ANY)
def test_what_a_file_system_may_take_for_one_has_one_key(text: str) -> None:
    stem = stem_of(text, 0)
    variants = [unicodedata.normalize(form, stem) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    variants += [stem.upper(), stem.lower(), stem.title()] if stem.isascii() else []
    assert {key_of(variant) for variant in variants} == {key_of(stem)}


def test_pictures_of_one_record_have_names_of_their_own() -> None:
    assert names_of("a", ["jpg"]) == ["a.jpg"]
    assert names_of("a", ["jpg", "jpg", "png"]) == ["a~p0.jpg", "a~p1.jpg", "a~p2.png"]
    assert names_of("a", []) == []
