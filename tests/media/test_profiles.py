"""Color profiles and the gamma of PNGs, against the formulas.   python -m pytest tests/media/test_profiles.py"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from hpcdata import status
from hpcdata.media import pixels
from hpcdata.media.opening import open_image
from hpcdata.media.rules import RULES, WHITE
from tests.smallruns import small_run

SRGB = replace(WHITE, color="srgb")
SRGB_D50 = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
"""Columns: the colorants of sRGB as profiles have them, adapted to D50."""
PROPHOTO_D50 = np.array([[0.79767, 0.13519, 0.03135], [0.28804, 0.71188, 0.00009], [0.0, 0.0, 0.82491]])
COLORS = [(200, 100, 50), (10, 20, 30), (255, 255, 255), (0, 0, 0), (90, 200, 120), (128, 128, 128), (60, 60, 180)]


def icc(matrix: np.ndarray, gamma: float) -> bytes:
    """A profile of version 2 with a matrix and one curve, written by its specification."""

    def xyz(values: Sequence[float]) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz((0.9642, 1.0, 0.8249))}
    tags |= {name: xyz(matrix[:, column]) for column, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, data = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        value += bytes(-len(value) % 4)
        table += name + struct.pack(">2I", 132 + 12 * len(tags) + len(data), len(value))
        data += value
    head = (
        struct.pack(">I", 128 + len(table) + len(data)) + bytes(4) + b"\x02\x40\0\0mntrRGB XYZ " + bytes(12) + b"acsp"
    )
    head += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + data


def encoded(light: np.ndarray) -> np.ndarray:
    """sRGB levels, as floats."""
    light = light.clip(0, 1)
    return 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def by_hand(colors: Any, matrix: np.ndarray, gamma: float) -> np.ndarray:
    light = (np.array(colors) / 255) ** gamma
    return encoded(light @ (np.linalg.inv(SRGB_D50) @ matrix).T)


def file_of(colors: Any = COLORS, mode: str = "RGB", kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(np.array([colors] * 8, np.uint8), "RGB").convert(mode)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_with(colors: Any = COLORS, mode: str = "RGB", **chunks: Sequence[int] | bytes) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, values in chunks.items():
        data = values if isinstance(values, bytes) else struct.pack(f">{len(values)}I", *values)
        info.add(name.encode(), data)
    return file_of(colors, mode, pnginfo=info)


def row(data: bytes, rule: Any = SRGB) -> np.ndarray:
    return open_image(data, max_pixels=1000, rule=rule)[0].astype(float)


def num_unapplied(data: bytes, rule: Any = WHITE) -> int:
    noted = pixels.Noted()
    pixels.load(data, sizes=((8, 8),), max_pixels=1000, rule=rule, noted=noted)
    return noted.unapplied_profiles


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_a_wide_profile_is_applied(kind: str, options: dict[str, Any]) -> None:
    """ProPhoto was 15 levels off."""
    data = file_of(kind=kind, icc_profile=icc(PROPHOTO_D50, 1.8), **options)
    expected = by_hand(COLORS, PROPHOTO_D50, 1.8)
    assert np.abs(row(data) - expected).max() < 2
    assert np.abs(row(data, WHITE) - expected).max() > 15
    assert (num_unapplied(data), num_unapplied(data, SRGB)) == (1, 0)


def test_a_jpeg_of_swapped_channels_is_set_right() -> None:
    """These were 158 off. Also where a fast decoder would read it."""
    swapped = SRGB_D50[:, [1, 0, 2]]
    data = file_of([(250, 20, 20)] * 8, kind="JPEG", quality=100, icc_profile=icc(swapped, 2.2))
    expected = by_hand((250, 20, 20), swapped, 2.2)
    assert expected[1] > 240 > 30 > expected[0]
    assert np.abs(row(data) - expected).max() < 4
    loaded = pixels.load(data, sizes=((8, 8),), max_pixels=1000, jpeg_draft=True, rule=SRGB)
    assert np.abs(loaded.astype(float) - expected).max() < 4


def test_srgb_stays_byte_for_byte() -> None:
    data = file_of(icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert (row(data) == row(data, WHITE)).all()
    assert num_unapplied(data) == num_unapplied(data, SRGB) == 0


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "L"])
def test_other_modes_have_their_colors_and_alpha(mode: str) -> None:
    profile = icc(PROPHOTO_D50, 1.8)
    data = file_of(mode=mode, icc_profile=profile)
    stored = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[0]
    assert np.abs(row(data) - by_hand(stored, PROPHOTO_D50, 1.8)).max() < 2


def test_alpha_is_laid_on_white_behind_it() -> None:
    image = Image.new("RGBA", (8, 8), (250, 20, 20, 0))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", icc_profile=icc(PROPHOTO_D50, 1.8))
    assert (row(buffer.getvalue()) == 255).all()


@pytest.mark.parametrize("profile", [b"no profile", icc(PROPHOTO_D50, 1.8)[:200]])
def test_a_broken_profile_is_counted_and_no_reject(profile: bytes) -> None:
    data = file_of(icc_profile=profile)
    assert (row(data) == row(data, WHITE)).all()
    assert (num_unapplied(data), num_unapplied(data, SRGB)) == (1, 1)


def test_a_profile_of_other_colors_is_counted() -> None:
    data = file_of(mode="CMYK", kind="TIFF", icc_profile=icc(PROPHOTO_D50, 1.8))
    assert (num_unapplied(data), num_unapplied(data, SRGB)) == (1, 1)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
@pytest.mark.parametrize("gamma", [1.0, 0.55, 0.3])
def test_the_gamma_of_a_png_is_applied(mode: str, gamma: float) -> None:
    data = png_with(mode=mode, gAMA=[round(gamma * 100_000)])
    stored = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[0]
    assert np.abs(row(data) - encoded((stored / 255) ** (1 / gamma))).max() <= 0.51
    assert (num_unapplied(data), num_unapplied(data, SRGB)) == (1, 0)


CHRM = [31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000]
ADOBE = [31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000]
ADOBE_TO_SRGB = np.array([[1.39836, -0.39836, 0.0], [0.0, 1.0, 0.0], [0.0, -0.04293, 1.04293]])
"""As published for Adobe RGB (1998), whose white is that of sRGB."""


def test_the_primaries_of_a_png_are_applied() -> None:
    swapped = [*CHRM[:2], *CHRM[4:6], *CHRM[2:4], *CHRM[6:]]
    assert np.abs(row(png_with(gAMA=[45455], cHRM=swapped)) - np.array(COLORS)[:, [1, 0, 2]]).max() <= 1
    colors = [(100, 150, 120), (180, 170, 90)]
    expected = encoded((np.array(colors) / 255) ** (1 / 0.6) @ ADOBE_TO_SRGB.T)
    assert np.abs(row(png_with(colors, gAMA=[60000], cHRM=ADOBE)) - expected).max() <= 0.6


@pytest.mark.parametrize(
    "chunks",
    [
        {"gAMA": [45455]},
        {"gAMA": [45455], "cHRM": CHRM},
        {"gAMA": [100_000], "sRGB": b"\0"},
        {"cHRM": ADOBE},
        {"gAMA": [0]},
    ],
)
def test_what_says_srgb_or_nothing_is_left_as_it_is(chunks: dict[str, Any]) -> None:
    data = png_with(**chunks)
    assert (row(data) == row(data, WHITE)).all()
    assert num_unapplied(data) == 0


@pytest.mark.parametrize(
    "chunks", [{"gAMA": [1]}, {"gAMA": [60000], "cHRM": [0] * 8}, {"gAMA": [60000], "cHRM": [9] * 8}]
)
def test_senseless_chunks_are_counted_and_no_reject(chunks: dict[str, Any]) -> None:
    data = png_with(**chunks)
    assert (row(data) == row(data, WHITE)).all()
    assert num_unapplied(data, SRGB) == 1


def test_without_being_asked_for_no_rule_applies_them() -> None:
    assert {rule.color for rule in RULES.values()} == {"ignore"}
    data = png_with(gAMA=[100_000])
    assert (row(data, WHITE) == np.array(COLORS)).all()


@pytest.mark.parametrize(("color", "count"), [("ignore", 2), ("srgb", 0)])
def test_a_run_counts_what_it_does_not_apply(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], color: str, count: int
) -> None:
    (tmp_path / "in").mkdir()
    files = {"a": file_of(icc_profile=icc(PROPHOTO_D50, 1.8)), "b": png_with(gAMA=[100_000]), "c": file_of()}
    for name, data in files.items():
        (tmp_path / f"in/{name}.png").write_bytes(data)
        (tmp_path / f"in/{name}.txt").write_text("a caption")
    small_run(tmp_path / "out", f"data.color={color}", source=tmp_path / "in")
    (shard,) = tmp_path.glob("out/shards/0*/shard.json")
    counts = json.loads(shard.read_bytes())["counts"]
    assert counts["images"] == 3
    assert counts.get("unapplied_profiles") == (count or None), "0 is not written: shards are as they were"
    status.main([str(tmp_path / "out")])
    assert (f"{count} pictures have a color profile" in capsys.readouterr().out) == bool(count)
