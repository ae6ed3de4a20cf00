"""Colors to sRGB, where data.color=srgb: an ICC profile by littleCMS, gAMA and cHRM of a PNG by arithmetic of our own.

    ICC profile       applied (relative colorimetric, black point compensated) to RGB, gray, CMYK and LAB; alpha stays
    PNG gAMA, cHRM    applied where the file has neither an ICC profile nor an sRGB chunk; a gamma within 5 % of 1/2.2
                      is sRGB's curve (libpng's threshold); primaries go by way of XYZ, white adapted by Bradford
    as good as sRGB   a profile that moves no color by more than two levels: nothing is done
    not applied       a profile that is broken, or of other colors than the picture; gray of more than 8 bits

What was not applied is counted (`Counts.unapplied_profiles`): with data.color=ignore every picture that needs it.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

from hpcdata.media.rules import Color

Apply = Callable[[Image.Image], Image.Image]
"""A picture in the mode of its profile, without alpha -> one in sRGB: RGB, or L where gray stays gray."""

_BASES = {"RGB": "RGB", "RGBA": "RGB", "RGBX": "RGB", "P": "RGB", "PA": "RGB", "L": "L", "LA": "L", "CMYK": "CMYK"}
_BASES |= {"LAB": "LAB"}
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}
_NEAR_LEVELS = 2
_NEAR_GAMMA, _GAMMA = 0.05, 1 / 2.2
_NEAR_PRIMARY = 0.005
_SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
"""x and y of white, red, green and blue, in the order of cHRM."""
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_BLOCK_PIXELS = 1 << 18


class Correction(NamedTuple):
    """What a picture needs to be in sRGB. `apply` is None where that cannot be done."""

    base: str
    apply: Apply | None


def to_srgb(image: Image.Image, color: Color) -> Image.Image:
    """A decoded picture in sRGB as far as it can be; the picture itself where nothing is to be done."""
    correction = find_correction(image) if color == "srgb" else None
    if correction is None or correction.apply is None:
        return image
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA" if correction.base == "RGB" else "LA")
        alpha = image.getchannel("A")
    corrected = correction.apply(image.convert(correction.base) if image.mode != correction.base else image)
    if alpha is not None:
        corrected.putalpha(alpha)
    return corrected


def is_unapplied(image: Image.Image, color: Color) -> bool:
    """Whether a picture needs a correction that it does not get."""
    correction = find_correction(image)
    return correction is not None and (color != "srgb" or correction.apply is None)


def find_correction(image: Image.Image) -> Correction | None:
    """None for a picture that is in sRGB, or says nothing of its colors."""
    if image.mode == "1":
        return None
    profile, base = image.info.get("icc_profile"), _BASES.get(image.mode, "")
    if isinstance(profile, bytes) and profile:
        return _of_profile(profile, base)
    gamma = image.info.get("gamma")
    if image.format != "PNG" or "srgb" in image.info or not isinstance(gamma, float) or gamma == 0:
        return None
    return _of_gamma(gamma, image.info.get("chromaticity"), base)


@functools.lru_cache(maxsize=64)
def _of_profile(profile: bytes, base: str) -> Correction | None:
    try:
        found = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = found.profile.xcolor_space.strip()
        if base == "L" and space == _SPACES["RGB"]:
            return _of_profile(profile, "RGB")
        if space != _SPACES.get(base):
            return Correction(base, None)
        transform = ImageCms.buildTransform(
            found,
            ImageCms.createProfile("sRGB"),
            base,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return Correction(base, None)

    def apply(image: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None
        return converted

    return None if _is_near(apply, base) else Correction(base, apply)


def _is_near(apply: Apply, base: str) -> bool:
    """Whether it moves no color by more than `_NEAR_LEVELS`."""
    levels: np.ndarray = np.arange(0, 256, 15, dtype=np.uint8)
    colors: np.ndarray
    if base == "RGB":
        colors = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    elif base == "L":
        colors = levels.reshape(1, -1)
    else:
        return False
    found = np.asarray(apply(Image.fromarray(colors))).astype(int)
    expected = colors if found.ndim == colors.ndim else colors[:, :, None]
    return int(np.abs(found - expected).max()) <= _NEAR_LEVELS


@functools.lru_cache(maxsize=64)
def _of_gamma(gamma: float, chromaticity: tuple[float, ...] | None, base: str) -> Correction | None:
    """Of a PNG; chromaticity as Pillow has it, in the order of cHRM."""
    has_curve = abs(gamma / _GAMMA - 1) > _NEAR_GAMMA
    has_primaries = chromaticity is not None and any(
        abs(value - other) > _NEAR_PRIMARY for value, other in zip(chromaticity, _SRGB, strict=True)
    )
    if not has_curve and not (has_primaries and base == "RGB"):
        return None
    if base not in ("RGB", "L") or not 0.01 < gamma < 10:
        return Correction(base, None)
    ramp = np.arange(256) / 255
    light = ramp ** (1 / gamma) if has_curve else _decoded(ramp)
    if base == "L" or not has_primaries:
        table = _encoded(light).tolist()
        return Correction(base, lambda image: image.point(table * len(image.getbands())))
    assert chromaticity is not None
    try:
        matrix = np.linalg.inv(_to_xyz(_SRGB)) @ _adapted(chromaticity) @ _to_xyz(chromaticity)
    except (np.linalg.LinAlgError, ZeroDivisionError):
        return Correction(base, None)
    return Correction(base, functools.partial(_by_matrix, light=light, matrix=matrix))


def _by_matrix(image: Image.Image, *, light: np.ndarray, matrix: np.ndarray) -> Image.Image:
    """light: [256] linear; matrix: [3, 3] from linear light of the file to that of sRGB."""
    pixels = np.asarray(image)
    out = np.empty_like(pixels)
    rows = max(1, _BLOCK_PIXELS // max(1, image.width))
    for start in range(0, image.height, rows):
        red, green, blue = np.moveaxis(light[pixels[start : start + rows]], -1, 0)
        for channel, (of_red, of_green, of_blue) in enumerate(matrix):
            out[start : start + rows, :, channel] = _encoded(of_red * red + of_green * green + of_blue * blue)
    return Image.fromarray(out)


def _decoded(values: np.ndarray) -> np.ndarray:
    """Linear light of sRGB values of 0 to 1."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _encoded(light: np.ndarray) -> np.ndarray:
    """uint8 sRGB levels of linear light, clipped: the level whose own light is nearest in levels."""
    return np.searchsorted(_decoded((np.arange(255) + 0.5) / 255), light, side="right").astype(np.uint8)


def _to_xyz(chromaticity: tuple[float, ...]) -> np.ndarray:
    """[3, 3] from linear RGB to XYZ, white at Y = 1."""
    white, *primaries = (_xyz(*chromaticity[at : at + 2]) for at in range(0, 8, 2))
    columns = np.stack(primaries, axis=1)
    return columns * np.linalg.solve(columns, white)


def _adapted(chromaticity: tuple[float, ...]) -> np.ndarray:
    """[3, 3] from XYZ below the file's white to XYZ below that of sRGB."""
    gains = (_BRADFORD @ _xyz(*_SRGB[:2])) / (_BRADFORD @ _xyz(*chromaticity[:2]))
    return np.linalg.inv(_BRADFORD) @ (gains[:, None] * _BRADFORD)


def _xyz(x: float, y: float) -> np.ndarray:
    return np.array([x / y, 1.0, (1 - x - y) / y])
