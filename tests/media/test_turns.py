"""Large pictures are decoded in turns.   pytest tests/media/test_turns.py"""

from __future__ import annotations

import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from hpcdata.media import pixels, turns
from hpcdata.media.opening import open_image
from hpcdata.samples import BadSample, Reason

SIDE = 64
PIXELS = SIDE * SIDE


def file_of(mode: str, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (SIDE, SIDE)).save(buffer, format_name, **options)
    return buffer.getvalue()


def predicted(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        return turns.decoding_bytes(image, data)


@pytest.mark.parametrize("load", [open_image, lambda data, **limits: pixels.load(data, sizes=((8, 8),), **limits)])
def test_a_picture_whose_decoder_takes_too_much_is_rejected(load) -> None:
    whole, tiled = file_of("RGBA", "JPEG2000"), file_of("RGBA", "JPEG2000", tile_size=(16, 16))
    with pytest.raises(BadSample, match=f"takes {25 * PIXELS} bytes of memory, the limit is {17 * PIXELS}") as caught:
        load(whole, max_pixels=PIXELS)
    assert caught.value.reason is Reason.OVERSIZED_IMAGE
    for data in (tiled, file_of("RGBA", "WEBP"), file_of("L", "JPEG2000"), file_of("RGB", "JPEG")):
        load(data, max_pixels=PIXELS)
    load(whole, max_pixels=2 * PIXELS)


def test_a_second_word_on_tiles_makes_a_picture_no_smaller() -> None:
    """A box of metadata may hold whatever looks like a codestream."""
    data = file_of("RGB", "JPEG2000")
    small = b"\xff\x4f\xff\x51" + bytes(20) + (16).to_bytes(4, "big") * 2
    with Image.open(io.BytesIO(data)) as image:
        assert turns.decoding_bytes(image, small + data) == turns.decoding_bytes(image, data) == 20 * PIXELS


def test_pictures_at_work_never_take_more_than_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "FREE_BYTES", 0)
    files = [file_of(*kind) for kind in (("RGB", "JPEG"), ("RGBA", "WEBP"), ("RGB", "JPEG2000"))]
    lock, taken, most = threading.Lock(), 0, 0
    budget = turns.BUDGET * 2 * PIXELS

    def decode(data: bytes) -> None:
        nonlocal taken, most
        with Image.open(io.BytesIO(data)) as image, turns.turn(image, data, 2 * PIXELS):
            with lock:
                taken += predicted(data)
                most = max(most, taken)
            time.sleep(0.002)
            with lock:
                taken -= predicted(data)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(decode, files * 6))
    assert taken == 0
    assert max(map(predicted, files)) <= most <= budget


def test_a_picture_has_no_pixels_behind_its_turn() -> None:
    data = file_of("RGB", "JPEG")
    with Image.open(io.BytesIO(data)) as image:
        with turns.turn(image, data, PIXELS):
            image.load()
        with pytest.raises(ValueError, match="closed image"):
            image.getpixel((0, 0))


def test_a_turn_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "FREE_BYTES", 0)
    broken = file_of("RGB", "PNG")[:-40]
    for _ in range(3):
        with pytest.raises(BadSample):
            open_image(broken, max_pixels=PIXELS)
    assert turns._shared._taken == 0


def test_small_pictures_take_nothing_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of("RGB", "JPEG")
    with Image.open(io.BytesIO(data)) as image, turns.turn(image, data, PIXELS):
        assert turns._shared._taken == 0
    monkeypatch.setattr(turns, "FREE_BYTES", predicted(data) - 9)
    with Image.open(io.BytesIO(data)) as image, turns.turn(image, data, PIXELS):
        assert turns._shared._taken == 9


def test_a_forked_child_does_not_wait_for_threads_that_it_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "FREE_BYTES", 0)
    data = file_of("RGB", "JPEG")
    with Image.open(io.BytesIO(data)) as image, turns.turn(image, data, PIXELS):
        child = os.fork()
        if child == 0:
            with turns.turn(image, data, PIXELS):
                os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_memory_of_large_pictures_goes_back_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[int]()
    monkeypatch.setattr(turns, "_give_back", lambda: calls.append(turns._shared._taken))
    monkeypatch.setattr(turns, "FREE_BYTES", 0)
    open_image(data := file_of("RGB", "JPEG"), max_pixels=PIXELS)
    assert calls == []
    monkeypatch.setattr(turns, "_TRIMMED_BYTES", predicted(data))
    open_image(data, max_pixels=PIXELS)
    assert calls == [predicted(data)], "before the next one begins"


def test_the_system_takes_memory_back() -> None:
    turns._give_back()
