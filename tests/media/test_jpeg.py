"""simplejpeg changes nothing but the time: the same pixels or the same reject.   pytest tests/media/test_jpeg.py"""

from __future__ import annotations

import importlib.util
import io
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from hpcdata.media import jpeg
from hpcdata.media.opening import open_image
from hpcdata.media.rules import RULES
from hpcdata.samples import BadSample
from tests.media import pictures
from tests.media.pictures import encoded, noisy
from tests.selection import examples

LIMIT = 400_000
FILES = {**pictures.jpegs(), **pictures.turned(33, 21)}
SEEDS = [
    *(encoded(noisy(60, 44), "JPEG", progressive=progressive, subsampling="4:2:0") for progressive in (False, True)),
    encoded(noisy(60, 44), "JPEG", subsampling="4:4:4", restart_marker_blocks=4),
    encoded(noisy(60, 44, "L"), "JPEG", exif=pictures.exif(6)),
    encoded(noisy(60, 44, "CMYK"), "JPEG"),
    encoded(noisy(400, 300), "JPEG", quality=98),  # more than Pillow reads at a time
]
needs_simplejpeg = pytest.mark.skipif(
    importlib.util.find_spec("simplejpeg") is None, reason="pip install 'hpcdata[fast]'"
)

Outcome = tuple[object, ...]


def outcome(data: bytes, decoder: jpeg.Decoder | None, rule: str = "white") -> Outcome:
    """Shape and bytes, or reason and message, with this decoder beside Pillow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpeg, "_found", [decoder])
        try:
            made = open_image(data, max_pixels=LIMIT, rule=RULES[rule])
        except BadSample as bad:
            return bad.reason, bad.message
        return made.shape, made.tobytes()


def working() -> jpeg.Decoder:
    found = jpeg.the_decoder()
    assert found is not None, "simplejpeg makes other bytes than Pillow"
    return found


def counting(decoder: jpeg.Decoder) -> tuple[jpeg.Decoder, list[bytes]]:
    """The same one, and the list that it writes what it decoded to."""
    done: list[bytes] = []

    def decode(data: bytes, colorspace: str) -> np.ndarray:
        array = decoder.decode(data, colorspace)
        done.append(data)
        return array

    return jpeg.Decoder(decode, decoder.kinds, decoder.decode_small), done


@needs_simplejpeg
@pytest.mark.parametrize("rule", RULES)
def test_pixels_and_rejects_are_those_of_pillow(rule: str) -> None:
    decoder, done = counting(working())
    differing = [name for name, data in FILES.items() if outcome(data, decoder, rule) != outcome(data, None, rule)]
    assert differing == []
    by_pillow = {name for name, data in FILES.items() if data[:2] == b"\xff\xd8" and data not in done}
    turned = {name for name in by_pillow if "orientation" in name or "side" in name or "written" in name}
    assert by_pillow - turned == {"CMYK", "MPO"}
    assert len(turned) == {"white": 11, "molmo": 11, "liquid": 1}[rule]


def damaged(data: bytes, cut: float, flips: list[tuple[float, int]]) -> bytes:
    changed = bytearray(data[: max(1, int(len(data) * cut))])
    for where, value in flips:
        changed[int(where * len(changed))] = value
    return bytes(changed)


@needs_simplejpeg
@settings(max_examples=examples(300), deadline=None)
@given(
    data=st.sampled_from(SEEDS),
    cut=st.one_of(st.just(1.0), st.floats(0, 1)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=5),
)
@example(data=SEEDS[0], cut=0.5, flips=[])
@example(data=SEEDS[1], cut=0.99, flips=[])
def test_damaged_jpegs_are_what_pillow_makes_of_them(data: bytes, cut: float, flips: list[tuple[float, int]]) -> None:
    broken = damaged(data, cut, flips)
    assert outcome(broken, working()) == outcome(broken, None)


@needs_simplejpeg
@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_a_jpeg_that_lacks_its_last_bytes_is_left_to_pillow(seed: int) -> None:
    for missing in (1, 2, 3, 10, 100):
        decoder, done = counting(working())
        data = SEEDS[seed][:-missing]
        assert outcome(data, decoder) == outcome(data, None)
        assert done == []


@needs_simplejpeg
def test_nothing_is_decoded_before_the_limit_is_judged() -> None:
    decoder, done = counting(working())
    data = encoded(noisy(800, 501), "JPEG")
    assert outcome(data, decoder) == outcome(data, None)
    assert "the header promises 400800 pixels, the limit is 400000" in outcome(data, decoder)
    assert done == []


@needs_simplejpeg
def test_the_test_pictures_cover_the_usual_kinds() -> None:
    color = [(17, 17, 17), (33, 17, 17), (34, 17, 17)]
    assert working().kinds == {jpeg.Kind(progressive, s) for progressive in (False, True) for s in [(17,), *color]}


class Fake:
    """A module simplejpeg that decodes by Pillow, and wrongly where `spoil` says so."""

    def __init__(self, spoil) -> None:
        self._spoil = spoil

    def decode_jpeg(self, data: bytes, *, colorspace: str, strict: bool) -> np.ndarray:
        assert strict
        with Image.open(io.BytesIO(data)) as image:
            array = np.array(image)
        return self._spoil(array if colorspace == "RGB" else array[:, :, None])


def tried(monkeypatch, module: object) -> jpeg.Decoder | None:
    monkeypatch.setattr(jpeg, "_found", [])
    monkeypatch.setitem(sys.modules, "simplejpeg", module)
    return jpeg.the_decoder()


def off_by_one(array: np.ndarray) -> np.ndarray:
    if array.shape[2] == 3:
        array[-1, -1, 0] ^= 1
    return array


def raises(array: np.ndarray) -> np.ndarray:
    raise RuntimeError("of another libjpeg")


@pytest.mark.parametrize("spoil", [off_by_one, raises, lambda array: array[:-1], lambda array: array.astype(np.int16)])
def test_a_decoder_that_differs_in_a_test_picture_is_not_used_and_this_is_said_once(monkeypatch, caplog, spoil) -> None:
    assert tried(monkeypatch, Fake(lambda array: array)) is not None
    with caplog.at_level(logging.WARNING):
        assert tried(monkeypatch, Fake(spoil)) is None
        assert jpeg.the_decoder() is None
    assert [record.message.split(":")[0] for record in caplog.records] == ["JPEGs are decoded by Pillow alone"]
    assert outcome(SEEDS[0], None) == outcome(SEEDS[0], jpeg.the_decoder())


def test_without_simplejpeg_pillow_does_it_and_says_so(monkeypatch, caplog) -> None:
    with caplog.at_level(logging.INFO):
        assert tried(monkeypatch, None) is None
    assert "pip install 'hpcdata[fast]'" in caplog.text


@pytest.mark.parametrize("spoil", [raises, lambda array: array[:-1]])
def test_pillow_takes_over_when_a_later_picture_fails(monkeypatch, spoil) -> None:
    good = tried(monkeypatch, Fake(lambda array: array))
    assert good is not None
    bad = jpeg.Decoder(lambda data, colorspace: spoil(good.decode(data, colorspace)), good.kinds, good.decode_small)
    assert outcome(SEEDS[0], bad) == outcome(SEEDS[0], None)


def test_memory_that_is_out_is_no_reject(monkeypatch) -> None:
    good = tried(monkeypatch, Fake(lambda array: array))
    assert good is not None

    def decode(data: bytes, colorspace: str) -> np.ndarray:
        raise MemoryError

    with pytest.raises(MemoryError):
        outcome(SEEDS[0], jpeg.Decoder(decode, good.kinds, good.decode_small))


def test_threads_try_it_once(monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(jpeg, "_found", [])
    tried_once = jpeg._tried
    monkeypatch.setattr(jpeg, "_tried", lambda: calls.append(1) or tried_once())
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: open_image(SEEDS[0], max_pixels=LIMIT).tobytes(), range(16)))
    assert len(calls) == 1
    assert len(set(made)) == 1


def test_importing_the_room_does_not_import_simplejpeg() -> None:
    code = "import sys, hpcdata.media.opening; assert 'simplejpeg' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
