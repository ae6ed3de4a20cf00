"""A text at which a Rust tokenizer panics is rejected by name, its neighbours are written, no process ends.

pytest tests/encoders/text/test_panics.py
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from hpcdata import TokenDataset
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.dataset.verifying import verify
from hpcdata.encoders.text import engines, panics, tokenizer
from hpcdata.runs.rejects import rows_of
from tests.smallruns import small_run

SPACES = " " * 11_000_000 + "x"
"""More than the regular expressions of `tokenizers` try at one place."""


PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""How Llama 3 splits texts."""


@pytest.fixture(scope="module")
def llama3_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Byte-level BPE without merges, split like Llama 3."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({character: number for number, character in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return path


@pytest.fixture
def no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.JsonEngine, "most_bytes", 1 << 30)


@pytest.mark.usefixtures("no_limit")
def test_the_others_of_a_batch_have_their_ids(llama3_like: Path) -> None:
    identity = tokenizer.identify(str(llama3_like), add_image_token=False, use_slow_tokenizer=False)
    engine = tokenizer.build(identity, str(llama3_like))
    expected, _, failed = panics.encode(engine, ["ab", "c"])
    assert not failed
    ids, offsets, failed = panics.encode(engine, ["ab", SPACES, "c"])
    assert list(failed) == [1]
    assert "gives up: Onig: Regex search error" in failed[1].message
    assert ids.tolist() == expected.tolist()
    assert offsets.tolist() == [0, 2, 2, 3]


def test_other_errors_stay_what_they_are() -> None:
    for error in (KeyboardInterrupt, SystemExit, ValueError):
        with pytest.raises(error), panics.caught():
            raise error


@pytest.mark.slow
@pytest.mark.parametrize("as_samples", [False, True])
def test_a_run_rejects_a_text_that_is_too_long_and_writes_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_samples: bool
) -> None:
    monkeypatch.setattr(engines.JsonEngine, "most_bytes", 99_999)
    texts, field = ["first", "a" * 100_000, "third"], "caption" if as_samples else "text"
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({field: text}) + "\n" for text in texts))
    small_run(tmp_path / "run", "image.tokenizer=none", "data.n_train_samples=null", source=tmp_path / "x.jsonl")
    rows = list(rows_of(tmp_path / "run"))
    assert [(row.index, row.reason) for row in rows] == [(1, "oversized_text")]
    assert rows[0].message.startswith("100000 bytes without a place where")


@pytest.mark.usefixtures("no_limit")
@pytest.mark.parametrize("as_samples", [False, True])
def test_a_run_rejects_the_text_and_writes_the_others(tmp_path: Path, llama3_like: Path, as_samples: bool) -> None:
    texts = ["first", SPACES, "third"]
    field = "caption" if as_samples else "text"
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({field: text}) + "\n" for text in texts))
    overrides = [f"text.tokenizer={llama3_like}", "image.tokenizer=none", "data.n_train_samples=null"]
    small_run(tmp_path / "run", *overrides, source=tmp_path / "x.jsonl")
    combine(tmp_path / "run", CombineOptions())
    assert not [problem for report in verify(tmp_path / "run") for problem in report.problems]
    rows = list(rows_of(tmp_path / "run"))
    assert [(row.index, row.reason) for row in rows] == [(1, "crash")]
    assert "the tokenizer gives up" in rows[0].message
    assert len(TokenDataset(tmp_path / "run")) == 2
