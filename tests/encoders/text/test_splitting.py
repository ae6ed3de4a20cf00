"""Long texts in pieces have the ids of the whole text.   pytest tests/encoders/text/test_splitting.py"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from hpcdata import embedded
from hpcdata.encoders.text import splitting
from hpcdata.encoders.text import tokenizer as text
from hpcdata.samples import BadSample, Reason
from tests.encoders.text.test_real_tokenizers import NFKC, TOKENIZERS, path_of
from tests.encoders.text.test_tokenizer import CORPUS, train_bpe, train_sentencepiece, train_unigram
from tests.selection import examples


def train_like_llama_2(path: Path, *, across: bool = False) -> Path:
    """Nothing splits a text before pairs are merged; spaces become ▁, and each text gets one in front."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    trainer = trainers.BpeTrainer(vocab_size=350, special_tokens=["<unk>"], show_progress=False)
    if not across:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator((line.replace(" ", "▁") for line in CORPUS) if across else CORPUS, trainer)
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.save(str(path))
    return path


MADE: dict[str, Callable[[Path], Path]] = {
    "embedded": lambda folder: Path(str(embedded.path(embedded.TOKENIZER))),
    "byte level": lambda folder: train_bpe(folder / "tokenizer.json"),
    "sentencepiece": lambda folder: train_sentencepiece(folder / "tokenizer.model"),
    "sentencepiece with all spaces": lambda folder: train_sentencepiece(
        folder / "tokenizer.model", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True
    ),
    "unigram that splits at spaces": lambda folder: train_unigram(folder / "tokenizer.json"),
    "like llama 2": lambda folder: train_like_llama_2(folder / "tokenizer.json"),
    **{name: lambda folder, file=file: path_of(file) for name, file in {**TOKENIZERS, "nfkc": NFKC}.items()},
}


class Watched:
    """An engine that notes how long the texts are that it is given."""

    def __init__(self, engine) -> None:
        self._engine, self.longest = engine, 0

    def encode(self, texts):
        self.longest = max([self.longest, *map(len, texts)])
        return self._engine.encode(texts)

    def decode(self, ids):
        return self._engine.decode(ids)


@pytest.fixture(scope="module", params=MADE)
def reference(request, tmp_path_factory):
    path = MADE[request.param](tmp_path_factory.mktemp("made"))
    return text._load(path, str(path))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(splitting, "LONGEST_WHOLE", 40)
    monkeypatch.setattr(splitting, "PIECE_CHARACTERS", 12)


WORDS = [
    "a",
    "the",
    "cat",
    "haus",
    "слово",
    "日本",
    "é",
    "e\u0301",
    "ﬁ",
    "I'm",
    "12",
    "3.14",
    "x=1",
    "<b>",
    "👍🏽",
    "▁",
    "Ġ",
]
WORDS += ["", "\n", "\t", "...", "'s", "</s>", "<image>", "\u00a0", "ก็", "हिन्दी", "\u0301", "A" * 30]
TEXTS = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from([" ", " ", " ", "  ", "\n", "", ", "])), min_size=1)


def joined(parts):
    return "".join(word + gap for word, gap in parts)


@settings(max_examples=examples(25), deadline=None)
@given(parts=st.lists(TEXTS.map(joined).filter(bool), min_size=1, max_size=3))
def test_ids_are_those_of_the_whole_text(reference, parts) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splitting, "LONGEST_WHOLE", 40)
        patch.setattr(splitting, "PIECE_CHARACTERS", 12)
        ids, offsets = splitting.Splitting(reference, reference).encode(parts)
    expected, expected_offsets = reference.encode(parts)
    assert np.array_equal(ids, expected)
    assert np.array_equal(offsets, expected_offsets)


def test_no_engine_gets_a_long_text(reference, small) -> None:
    watched = Watched(reference)
    long = "a red house stands beside the blue river " * 50
    tokenizer = splitting.Splitting(reference, watched)
    assert np.array_equal(tokenizer.encode([long, "short", long])[0], reference.encode([long, "short", long])[0])
    assert watched.longest <= 40


@pytest.mark.parametrize("kind", ["unigram", "pieces across words", "a literal with a space"])
def test_where_tokens_may_lie_across_words_a_text_is_encoded_whole(tmp_path, caplog, small, kind) -> None:
    """Viterbi's sums are rounded by what stands before; pieces such as `red▁house` have no place to cut."""
    if kind == "unigram":
        path = train_unigram(tmp_path / "tokenizer.json")
        whole = Tokenizer.from_file(str(path))
        whole.pre_tokenizer = None
        whole.save(str(path))
    elif kind == "pieces across words":
        path = train_like_llama_2(tmp_path / "tokenizer.json", across=True)
    else:
        path = train_bpe(tmp_path / "tokenizer.json", specials=("<end of text>",))
    reference = text._load(path, str(path))
    watched = Watched(reference)
    with caplog.at_level(logging.WARNING):
        splitting.Splitting(reference, watched).encode(["a red house " * 20])
    assert watched.longest == 240
    assert "cannot encode a long text in pieces" in caplog.text


def test_a_text_without_spaces_is_encoded_whole_and_short_texts_ask_nothing(tmp_path, small) -> None:
    reference = text._load(path := train_bpe(tmp_path / "tokenizer.json"), str(path))
    watched = Watched(reference)
    splitting.Splitting(reference, watched).encode(["x" * 100])
    assert watched.longest == 100
    reference.merges_within_words = None  # type: ignore[method-assign,assignment]
    splitting.Splitting(reference, watched).encode(["a red house"])


def test_the_tokenizer_of_a_run_splits(tmp_path) -> None:
    identity = text.identify("embedded", add_image_token=False, use_slow_tokenizer=False)
    assert isinstance(text.build(identity, "embedded"), splitting.Splitting)


def test_a_text_that_cannot_be_cut_is_rejected_behind_a_limit(reference, small, monkeypatch) -> None:
    monkeypatch.setattr(splitting, "_ALWAYS_SHORT", 16)
    monkeypatch.setattr(type(reference), "most_bytes", 60)
    tokenizer = splitting.Splitting(reference, reference)
    long = "a red house stands beside the blue river " * 50
    assert np.array_equal(tokenizer.encode([long])[0], reference.encode([long])[0])
    for text_ in ("a" * 61, "日本語" * 20, f"{long}{'b' * 61}"):
        with pytest.raises(BadSample, match=r"\d+ bytes without a place where .* the limit is 60") as caught:
            tokenizer.encode(["short", text_])
        assert caught.value.reason is Reason.OVERSIZED_TEXT


def test_bytes_are_those_of_the_normal_form() -> None:
    text_ = "\ufdfa" * 10
    assert splitting._most_bytes(text_, normalizes=False) == 30
    assert splitting._most_bytes(text_, normalizes=True) == 330
    assert splitting._most_bytes("e\u0301" * 10, normalizes=True) == 30


def test_few_places_are_tried_where_none_fits(reference, small, monkeypatch) -> None:
    tried = 0

    def agrees(*_: object) -> bool:
        nonlocal tried
        tried += 1
        return tried <= len(list(splitting._probes()))

    monkeypatch.setattr(splitting.Splitting, "_agrees", agrees)
    splitting.Splitting(reference, reference).encode(["a b " * 1000])
    assert tried <= len(list(splitting._probes())) + 1 + splitting._MOST_TRIES
