"""A picture that shows what codes keep: originals beside what their codes decode to, with the captions below.

One PNG by Pillow alone, a card a sample. Colors and sizes are constants here; pictures are shown pixel by pixel
unless they are larger than a card holds.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hpcdata.base import files

Pair = tuple[np.ndarray, np.ndarray, str]
"""Original and decoded, both [H, W, 3] uint8 RGB, and the caption."""

SMALLEST_TILE = 128
LARGEST_TILE = 256
SHEET_WIDTH = 1800
"""Most pixels of a row of cards."""
GAP, PADDING, MARGIN = 6, 14, 18
CAPTION_SIZE, LABEL_SIZE, LEADING, MAX_LINES = 16, 12, 5, 2
PAGE, CARD, LINE, INK, FAINT = "#f3f4f6", "#ffffff", "#d9dce1", "#1f2430", "#808795"
OTHER_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "FreeSans.ttf")
"""Tried, where the system has them, for captions that Pillow's own font has no glyphs for."""
NO_GLYPH = "\U0010ffff"


def write_preview(pairs: Sequence[Pair], path: Path) -> None:
    """Writes the contact sheet of `pairs` as a PNG, atomically. Raises ValueError when there are none."""
    if not pairs:
        raise ValueError("a preview needs at least one picture")
    buffer = io.BytesIO()
    draw_sheet(pairs).save(buffer, "PNG")
    files.write_atomic(Path(path), buffer.getvalue())


def draw_sheet(pairs: Sequence[Pair]) -> Image.Image:
    """The contact sheet: cards of equal size, as many in a row as look right, in the order given."""
    captions = [" ".join(caption.split()) for _, _, caption in pairs]
    font = _font_for("".join(captions), CAPTION_SIZE)
    tile = min(max(SMALLEST_TILE, *(side for pair in pairs for side in pair[0].shape[:2])), LARGEST_TILE)
    texts = [wrap(caption, font, 2 * tile + GAP) for caption in captions]
    num_lines = max(map(len, texts))
    cards = [_card(pair[0], pair[1], text, num_lines, tile, font) for pair, text in zip(pairs, texts, strict=True)]
    width, height = (side + MARGIN for side in cards[0].size)
    columns = _num_columns(len(cards), width, height)
    rows = math.ceil(len(cards) / columns)
    sheet = Image.new("RGB", (columns * width + MARGIN, rows * height + MARGIN), PAGE)
    for place, card in enumerate(cards):
        row, column = divmod(place, columns)
        sheet.paste(card, (MARGIN + column * width, MARGIN + row * height))
    return sheet


def wrap(text: str, font: ImageFont.FreeTypeFont, width: int, max_lines: int = MAX_LINES) -> list[str]:
    """`text` in at most `max_lines` lines of `width` pixels; what does not fit ends in an ellipsis."""
    lines: list[str] = []
    rest = text
    while rest and len(lines) < max_lines - 1:
        head = rest[: _num_fitting(rest, font, width)]
        if len(head) < len(rest) and " " in head and not rest[len(head)].isspace():
            head = head[: head.rindex(" ")]
        lines.append(head.rstrip())
        rest = rest[len(head) :].lstrip()
    if rest and font.getlength(rest) > width:
        room = width - math.ceil(font.getlength("…"))
        rest = rest[: _num_fitting(rest, font, room)].rstrip() + "…"
    return [*lines, rest] if rest else lines


def _card(
    original: np.ndarray,
    decoded: np.ndarray,
    text: Sequence[str],
    num_lines: int,
    tile: int,
    font: ImageFont.FreeTypeFont,
) -> Image.Image:
    labels_top = PADDING + tile + 5
    text_top = labels_top + LABEL_SIZE + 9
    height = text_top + num_lines * (CAPTION_SIZE + LEADING) + PADDING - LEADING
    card = Image.new("RGB", (2 * (tile + PADDING) + GAP, height), CARD)
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, 0, card.width - 1, card.height - 1), outline=LINE)
    for left, pixels, label in ((PADDING, original, "original"), (PADDING + tile + GAP, decoded, "decoded")):
        picture = _fitted(pixels, tile)
        card.paste(picture, (left + (tile - picture.width) // 2, PADDING + (tile - picture.height) // 2))
        draw.rectangle((left - 1, PADDING - 1, left + tile, PADDING + tile), outline=LINE)
        draw.text((left + tile // 2, labels_top), label, font=_font_for("", LABEL_SIZE), fill=FAINT, anchor="ma")
    for number, line in enumerate(text):
        draw.text((PADDING, text_top + number * (CAPTION_SIZE + LEADING)), line, font=font, fill=INK)
    return card


def _fitted(pixels: np.ndarray, tile: int) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if max(image.size) > tile:
        image.thumbnail((tile, tile), Image.Resampling.LANCZOS)
    return image


def _num_columns(num_cards: int, width: int, height: int) -> int:
    """Near a sheet half again as wide as high, and no wider than a screen."""
    wanted = round(math.sqrt(1.5 * num_cards * height / width))
    return max(1, min(wanted, (SHEET_WIDTH - MARGIN) // width, num_cards))


def _num_fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> int:
    """Characters of the longest prefix that is at most `width` wide, at least one."""
    low, high = 1, min(len(text), width)
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(text[:middle]) <= width:
            low = middle
        else:
            high = middle - 1
    return low


def _font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The first font that has every character of `text`; if none has, the one that lacks fewest."""
    own = ImageFont.load_default(size)
    assert isinstance(own, ImageFont.FreeTypeFont), "Pillow is built without FreeType"
    characters = {character for character in text if not character.isspace()}
    best, best_missing = own, _num_missing(own, characters)
    for name in OTHER_FONTS if best_missing else ():
        try:
            font = ImageFont.truetype(name, size)
        except OSError:
            continue
        if (missing := _num_missing(font, characters)) < best_missing:
            best, best_missing = font, missing
    return best


def _num_missing(font: ImageFont.FreeTypeFont, characters: set[str]) -> int:
    nothing = bytes(font.getmask(NO_GLYPH))
    return sum(bytes(font.getmask(character)) == nothing for character in characters)
