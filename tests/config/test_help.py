"""The keys that --help lists.   pytest tests/config/test_help.py"""

from __future__ import annotations

from hpcdata.config import help as keys
from hpcdata.config import values


def test_every_key_is_described() -> None:
    texts = keys.descriptions()
    assert list(texts) == list(values.key_types())
    assert not [key for key, words in texts.items() if len(words.split()) < 2]
    assert texts["data.n_train_samples"] == "Encode only the first N samples of the inputs."


def test_the_list_tells_defaults_and_what_is_fixed() -> None:
    lines = keys.describe_keys().splitlines()
    assert " *data.resolution=256" in lines
    assert "  data.raw_data_dir=..., required" in lines
    assert "  finish.combine=null" in lines
    assert max(map(len, lines)) <= keys.WIDTH
