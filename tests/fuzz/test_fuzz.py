"""Parsers survive what a fuzzer has found, and simple damage to good input.   pytest tests/fuzz"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

REGRESSIONS = sorted((Path(__file__).parent / "regressions").glob("*-*"))


@pytest.fixture(scope="module", autouse=True)
def temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("fuzz")))
        yield


@pytest.fixture(scope="module")
def corpus() -> dict[str, list[bytes]]:
    return seeds()


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.name)
@pytest.mark.timeout(60)
def test_a_finding_stays_fixed(path: Path) -> None:
    TARGETS[path.name.rsplit("-", 1)[0]](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.timeout(60)
def test_damaged_input_is_a_value_a_reject_or_a_user_error(name: str, corpus: dict[str, list[bytes]]) -> None:
    """Without a fuzzer: 150 random edits from a fixed seed, and the usual suspects."""
    rng = random.Random(name)
    suspects = [b"", b"\0", b"null", b"[]", b"{}", b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5000, b'"\\ud800"', b"NaN"]
    for data in (*corpus[name], *suspects):
        TARGETS[name](data)
    for _ in range(150):
        data = bytearray(rng.choice(corpus[name]))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data) + 1)
            data[at : at + rng.choice([0, 1, 1, 8, 512])] = rng.choice(
                [b"", b"\0", b"9", b"-1", b'"', b"null", b"{}", b"1e9", rng.randbytes(4)]
            )
        TARGETS[name](bytes(data))
