"""The contact sheet of originals and decoded pictures. python -m pytest tests/report/test_preview.py"""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hpcdata.report import preview

RED, BLUE = np.array([200, 0, 0], np.uint8), np.array([0, 0, 200], np.uint8)


def pair(height=64, width=64, caption="A caption"):
    return np.full((height, width, 3), RED), np.full((height, width, 3), BLUE), caption


def count(sheet: Image.Image, color: np.ndarray) -> int:
    return int((np.asarray(sheet) == color).all(axis=2).sum())


def test_shows_every_picture_pixel_by_pixel(tmp_path):
    preview.write_preview([pair(), pair(), pair()], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert (sheet.format, sheet.mode) == ("PNG", "RGB")
        assert count(sheet, RED) == count(sheet, BLUE) == 3 * 64 * 64
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_original_is_left_of_decoded():
    pixels = np.asarray(preview.draw_sheet([pair()]))
    assert (pixels == RED).all(axis=2).nonzero()[1].max() < (pixels == BLUE).all(axis=2).nonzero()[1].min()


def test_large_pictures_are_fitted():
    sheet = preview.draw_sheet([pair(1000, 500)])
    assert count(sheet, RED) == preview.LARGEST_TILE * preview.LARGEST_TILE // 2


def test_pictures_of_mixed_sizes_share_one_card_size():
    sheet = preview.draw_sheet([pair(), pair(200, 130), pair(1, 1)])
    assert count(sheet, BLUE) == 64 * 64 + 200 * 130 + 1


@pytest.mark.parametrize("num_pairs", [1, 2, 5, 12, 40])
def test_sheets_are_neither_strips_nor_towers(num_pairs):
    width, height = preview.draw_sheet([pair(256, 256)] * num_pairs).size
    assert width <= preview.SHEET_WIDTH
    assert num_pairs > 12 or 0.5 <= width / height <= 3.5


def test_nothing_to_show(tmp_path):
    with pytest.raises(ValueError, match="at least one picture"):
        preview.write_preview([], tmp_path / "sheet.png")


def test_captions_are_drawn_on_one_line_each():
    blank, text = (preview.draw_sheet([pair(caption=caption)]) for caption in ("", "two\nlines\t of text"))
    assert text.height == blank.height + preview.CAPTION_SIZE + preview.LEADING
    assert text.tobytes() == preview.draw_sheet([pair(caption="two lines of text")]).tobytes()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abc WM,.é漢", min_size=1, max_size=40), max_size=12), st.integers(60, 500), st.integers(1, 3))
def test_wrapped_lines_fit_and_lose_nothing_but_the_end(words, width, max_lines):
    font = preview._font_for("", preview.CAPTION_SIZE)
    text = " ".join(" ".join(words).split())
    lines = preview.wrap(text, font, width, max_lines)
    assert len(lines) <= max_lines
    assert all(font.getlength(line) <= width for line in lines)
    shown = "".join(lines).replace(" ", "")
    whole = text.replace(" ", "")
    assert shown == whole or (shown.endswith("…") and whole.startswith(shown[:-1]) and len(lines) == max_lines)


def test_long_captions_end_in_an_ellipsis():
    font = preview._font_for("", preview.CAPTION_SIZE)
    assert preview.wrap("word " * 500, font, 300)[-1].endswith("…")
    assert preview.wrap("word " * 3, font, 300) == ["word word word"]


def test_pathological_captions():
    for caption in ("x" * 100_000, "\x00\x07", "🎉" * 50, "漢字" * 100, "\u202e\u0301", "a" + "\u0301" * 500):
        assert preview.draw_sheet([pair(caption=caption)]).width > 0


def test_font_with_the_needed_glyphs_is_found():
    plain = preview._font_for("plain ASCII", 16).getname()
    accents = preview._font_for("Ł Ж", 16)
    others = [name for name in preview.OTHER_FONTS if _exists(name)]
    assert plain == preview._font_for("", 16).getname()
    assert not others or (accents.getname() != plain and not preview._num_missing(accents, {"Ł", "Ж"}))


def _exists(name: str) -> bool:
    from PIL import ImageFont

    try:
        return bool(ImageFont.truetype(name, 16))
    except OSError:
        return False


def test_labels_do_not_touch_pictures():
    rows = (np.asarray(preview.draw_sheet([pair()])) == RED).all(axis=2).any(axis=1).nonzero()[0]
    assert all(second - first == 1 for first, second in itertools.pairwise(rows))
