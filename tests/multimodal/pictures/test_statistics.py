"""Normalising on the device.   pytest tests/multimodal/pictures/test_statistics.py"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hpcdata.multimodal.pictures.molmo import MolmoPictures
from hpcdata.multimodal.pictures.statistics import normalize
from tests.multimodal.pictures import made


@pytest.mark.parametrize("form", ["patches", "crops"])
@pytest.mark.parametrize("kind", ["openai", "siglip", "imagenet"])
def test_fast_crops_normalised_are_the_exact_ones(form: Any, kind: str) -> None:
    """Of a picture that needs no resizing, padding included."""
    ways: dict[str, Any] = {"tokens": made.TOKENS, "crop_mode": "resize", "form": form, "normalize": kind}
    image = made.photograph(336, 200)
    exact = MolmoPictures(**ways, pixels="exact")(image).pixels
    fast = MolmoPictures(**ways, pixels="fast")(image).pixels
    assert fast.dtype == np.uint8
    np.testing.assert_allclose(normalize(torch.from_numpy(fast), kind).numpy(), exact, rtol=0, atol=2e-6)
    assert torch.equal(normalize(torch.from_numpy(exact), kind), torch.from_numpy(exact))


def test_a_half_precision_result_can_be_asked_for() -> None:
    crops = torch.zeros((2, 3, 4, 4), dtype=torch.uint8)
    assert normalize(crops, "siglip", dtype=torch.bfloat16).dtype == torch.bfloat16


def test_unknown_statistics_and_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of openai"):
        normalize(torch.zeros((1, 3, 2, 2), dtype=torch.uint8), "clip")
    with pytest.raises(ValueError, match="three channels"):
        normalize(torch.zeros((1, 4, 4), dtype=torch.uint8), "siglip")
