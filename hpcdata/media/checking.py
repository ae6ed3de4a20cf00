"""Whether a picture can be decoded, for those who keep its file and not its pixels."""

from __future__ import annotations

from hpcdata.media import formats, jpeg, turns

_SMALLEST = (1, 1)


def check(data: bytes, *, max_pixels: int) -> None:
    """Reads the picture to its end. Safe in several threads with one `max_pixels`.

    Every bit of a JPEG is read, and an eighth of its sides computed: that takes a third of the time. Raises BadSample,
    see `formats.opened`.
    """
    with formats.opened(data, max_pixels) as image, turns.turn(image, data, max_pixels):
        if jpeg.is_in_order(data, image):
            return
        image.draft(None, _SMALLEST)
        image.load()
