"""The fast engine gives the reference's ids or none. pytest tests/encoders/text/test_fast.py"""

import json
import logging
import random
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata import embedded
from hpcdata.base.errors import UserError
from hpcdata.encoders.text import fast as fast_text
from hpcdata.encoders.text import tokenizer as text
from hpcdata.encoders.text.characters import may_not_be_nfc
from tests import corpora, smallruns, trees
from tests.encoders.text.test_tokenizer import train_bpe, train_sentencepiece, train_unigram
from tests.selection import examples


def with_nfc(path: Path) -> Path:
    """The same tokenizer with the normaliser of Qwen's."""
    content = json.loads(path.read_text())
    content["normalizer"] = {"type": "NFC"}
    path.write_text(json.dumps(content))
    return path


MODELS: dict[str, Callable[[Path], Path]] = {
    "embedded": lambda folder: embedded.path(embedded.TOKENIZER),
    "bpe": lambda folder: train_bpe(folder / "tokenizer.json"),
    "bpe_nfc": lambda folder: with_nfc(train_bpe(folder / "tokenizer.json")),
    "sentencepiece": lambda folder: train_sentencepiece(
        folder / "tokenizer.model", normalization_rule_name="identity", remove_extra_whitespaces=False
    ),
}


ALWAYS = ("embedded", "sentencepiece")
REST = ("bpe", "bpe_nfc")


class Spy:
    """A reference engine that notes what it is asked."""

    def __init__(self, reference) -> None:
        self._reference = reference
        self.asked: list[str] = []

    def __getattr__(self, name):
        return getattr(self._reference, name)

    def encode(self, texts):
        self.asked += texts
        return self._reference.encode(texts)


class Altered:
    """gigatoken, except that texts with `character` in them get another first id."""

    def __init__(self, engine, character: str) -> None:
        self._engine, self._character = engine, character

    def encode_batch(self, texts: Sequence[str]):
        rows = self._engine.encode_batch(texts).to_list()
        import awkward

        return awkward.Array(
            [[7, *row[1:]] if self._character in text else row for text, row in zip(texts, rows, strict=True)]
        )


def loaded(path: Path):
    return text._load(path, str(path))


@pytest.fixture(scope="module", params=[*ALWAYS, *(pytest.param(name, marks=pytest.mark.slow) for name in REST)])
def both(request, tmp_path_factory) -> tuple[fast_text.FastText, Spy]:
    spy = Spy(loaded(MODELS[request.param](tmp_path_factory.mktemp(request.param))))
    fast = fast_text.speed_up(spy)
    assert fast is not None
    return fast, spy


def same(fast: fast_text.FastText, spy: Spy, texts: list[str]) -> list[str]:
    """Asserts that the ids are the reference's; returns the texts that were left to it or audited."""
    spy.asked = []
    ids, offsets = fast.encode(texts)
    asked = list(spy.asked)
    expected_ids, expected_offsets = spy.encode(texts)
    assert ids.dtype == np.int32
    assert offsets.dtype == np.int64
    assert ids.tolist() == expected_ids.tolist()
    assert offsets.tolist() == expected_offsets.tolist()
    return asked


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), max_size=12))
@settings(deadline=None, max_examples=examples(60))
def test_ids_of_any_texts_are_the_references(both, texts):
    same(*both, texts)


def test_ids_of_mixed_scripts_and_marks_are_the_references(both):
    rng = random.Random(5)
    alphabet = (
        "aZ 0 9'.\n\t\u0301\u0323\u00e9\u0130\u200d\ufb01\u05d0\u0915\u093e\u4e00\uac00\U0001f600\U0001f3fd\u0378\ue000"
    )
    texts = ["".join(rng.choices(alphabet, k=rng.randrange(1, 80))) for _ in range(1000)]
    same(*both, texts)


@pytest.mark.skipif(not corpora.available("tuxpaint"), reason="tuxpaint-stamps is not installed")
def test_captions_in_77_languages_have_the_references_ids(both):
    files = sorted(corpora.TUXPAINT.rglob("*.txt"))
    captions = [line for file in files for line in file.read_text(errors="replace").splitlines() if line]
    assert len(captions) > 10_000
    captions = captions[::10]
    asked = same(*both, captions)
    assert len(asked) < 0.1 * len(captions)


def test_texts_that_engines_could_treat_differently_go_to_the_reference(both):
    fast, spy = both
    plain = [f"plain text number {number}" for number in range(200)]
    odd = ["a </s> b", "<s>", "unassigned \u0378", "private \ue000"]
    texts = plain[:100] + odd + plain[100:]
    asked = same(fast, spy, texts)
    assert set(odd) <= set(asked)
    assert 1 <= len(set(asked) & set(plain)) <= 3  # the sample that is audited


@pytest.mark.slow
def test_the_image_token_goes_to_the_reference_where_it_is_one():
    for is_added in (False, True):
        spy = Spy(loaded(embedded.path(embedded.TOKENIZER)))
        if is_added:
            spy.add_image_token(spy.vocab_size)
        fast = fast_text.speed_up(spy)
        assert fast is not None
        asked = same(fast, spy, ["a", "b <image> c", *["d"] * 9])
        assert ("b <image> c" in asked) is is_added


def test_a_batch_of_nothing_and_of_empty_texts(both):
    same(*both, [])
    same(*both, ["", "", ""])
    same(*both, ["", "e\u0301"])


def test_a_difference_that_the_audit_meets_stops_the_shard():
    reference = loaded(embedded.path(embedded.TOKENIZER))
    fast = fast_text.speed_up(reference)
    assert fast is not None
    fast._engine = Altered(fast._engine, "z")
    with pytest.raises(UserError, match=r"other ids than the reference engine of 'zebra 5'.*text.engine=reference"):
        fast.encode(["zebra 5"])


@pytest.mark.slow
def test_characters_with_other_ids_are_found_and_routed():
    spy = Spy(loaded(embedded.path(embedded.TOKENIZER)))
    engine = fast_text.speed_up(spy)._engine
    fast = fast_text.FastText(spy, Altered(engine, "\u0416"))
    assert fast.learn()
    assert "x\u0416" in same(fast, spy, ["x\u0416", "plain", "text"])


@pytest.mark.slow
def test_an_engine_that_differs_in_words_is_not_used():
    spy = Spy(loaded(embedded.path(embedded.TOKENIZER)))
    engine = fast_text.speed_up(spy)._engine
    assert not fast_text.FastText(spy, Altered(engine, "don't")).learn()


def test_a_sentencepiece_model_that_rewrites_characters_is_left_to_the_reference(tmp_path, caplog):
    """gigatoken 0.10.0 drops what stands behind some of the rewritten characters."""
    caplog.set_level(logging.INFO)
    path = train_sentencepiece(tmp_path / "tokenizer.model", normalization_rule_name="nmt_nfkc")
    assert fast_text.speed_up(loaded(path)) is None
    assert "not checked with its normalizer" in caplog.text


def test_what_the_engine_cannot_load_is_left_to_the_reference(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = train_unigram(tmp_path / "tokenizer.json")
    assert fast_text.speed_up(loaded(path)) is None
    assert "texts are tokenized by tokenizers alone: gigatoken" in caplog.text
    identity = text.identify(str(path), add_image_token=False, use_slow_tokenizer=False)
    with pytest.raises(UserError, match=r"text\.engine=fast"):
        text.build(identity, str(path), engine="fast")


def test_without_gigatoken_the_reference_does_it_and_says_so(caplog, monkeypatch):
    import sys

    caplog.set_level(logging.INFO)
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    assert fast_text.speed_up(loaded(embedded.path(embedded.TOKENIZER))) is None
    assert "pip install 'hpcdata[fast]'" in caplog.text


def test_the_fast_engine_starts_when_enough_text_has_passed(monkeypatch):
    monkeypatch.setattr(fast_text, "_REPAYING_CHARACTERS", 1000)
    spy = Spy(loaded(embedded.path(embedded.TOKENIZER)))
    tokenizer = fast_text.SpedUp(spy)
    texts = [f"{number} plain words" for number in range(50)]
    expected = spy.encode(texts)[0].tolist()
    for is_fast in (False, True, True):
        spy.asked = []
        assert tokenizer.encode(texts)[0].tolist() == expected
        assert (len([asked for asked in spy.asked if asked in texts]) < 10) == is_fast


def test_long_texts_are_audited_only_when_all_are_long(both):
    fast, _ = both
    long = "word " * 10_000
    assert fast._drawn([long, long, "short", long], set(), 0) == [2]
    assert len(fast._drawn([long, long], set(), 0)) == 1
    assert fast._drawn([long, "slow"], {1}, 1) == [0]


@pytest.mark.slow
def test_shards_are_the_same_bytes_with_either_engine(tmp_path):
    rng = random.Random(3)
    words = ["red", "house", "Straße", "日本", "e\u0301", "</s>", "don't", "12345"]
    lines = [f'{{"text": "{" ".join(rng.choices(words, k=30))}"}}\n' for _ in range(60)]
    (tmp_path / "texts.jsonl").write_text("".join(lines))
    for engine in ("fast", "reference"):
        options = ["data.source=text", "image.tokenizer=none", f"text.engine={engine}", "data.n_train_samples=null"]
        smallruns.small_run(tmp_path / engine, *options, source=tmp_path / "texts.jsonl")
    assert trees.sha256_tree(tmp_path / "fast/shards") == trees.sha256_tree(tmp_path / "reference/shards")


@given(st.text(st.characters(exclude_categories=["Cs", "Cn"])))
@settings(max_examples=300, deadline=None)
def test_texts_without_marked_characters_are_in_nfc(written):
    """What the table of characters does not mark is never compared with its normal form."""
    marked = may_not_be_nfc()
    kept = "".join(character for character in written if not marked[ord(character)])
    assert unicodedata.is_normalized("NFC", kept)


NOT_NFC = ["e\u0301", "q\u0307\u0323", "\u1100\u1161", "\uac00\u11a8", "\u0958", "\u09c7\u09be"]


@pytest.mark.parametrize("written", NOT_NFC)
def test_what_is_not_in_nfc_has_the_references_ids(both, written):
    same(*both, ["plain", f"naïve {written}x", "日本"])
    same(*both, [written, f"{written}{written}", f"a {written}\u0301"])


def test_only_where_a_tokenizer_composes_is_text_composed_for_the_fast_engine(tmp_path):
    """Characters younger than Unicode 3.2 may have other tables in the reference engine."""
    spy = Spy(loaded(with_nfc(train_bpe(tmp_path / "tokenizer.json"))))
    fast = fast_text.speed_up(spy)
    assert fast is not None
    texts = ["plain", "cafe\u0301", "\u033b\u09fe\u031d", "z"]
    assert fast._composed(texts, []) == ([2], ["plain", "café", texts[2], "z"])
    assert "\u033b\u09fe\u031d" in same(fast, spy, texts)
    assert fast._routed(texts) == []


@pytest.mark.slow
@pytest.mark.parametrize("is_normalized", [False, True])
@pytest.mark.parametrize(
    ("token", "text"),
    [
        ("[MASK]", "say [MAS\u212a] now"),  # the Kelvin sign becomes a K
        ("<x;>", "a <x\u037e> b"),
        ("caf\u00e9", "a cafe\u0301 b"),
        ("cafe\u0301", "a caf\u00e9 b"),
        ("cafe\u0301", "a cafe\u0301 b"),
    ],
)
def test_text_that_becomes_an_added_token_when_it_is_composed(tmp_path, token, text, is_normalized):
    """The reference may look for added tokens before it composes; text must never become a control id."""
    path = with_nfc(train_bpe(tmp_path / "tokenizer.json"))
    content = json.loads(path.read_text())
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": is_normalized, "special": False}
    content["added_tokens"].append({"id": max(content["model"]["vocab"].values()) + 1, "content": token, **added})
    path.write_text(json.dumps(content))
    spy = Spy(loaded(path))
    fast = fast_text.speed_up(spy)
    assert fast is not None
    same(fast, spy, ["plain text"] * 20 + [text])
    assert fast._composed([text], fast._routed([text]))[0] == [0]


def test_a_sentencepiece_model_with_rules_of_its_own_is_left_to_the_reference(tmp_path):
    rules = "65 301\tE9\n1100 1161\tAC00\n"
    (tmp_path / "rules.tsv").write_text(rules)
    path = train_sentencepiece(
        tmp_path / "tokenizer.model",
        normalization_rule_tsv=str(tmp_path / "rules.tsv"),
        remove_extra_whitespaces=False,
    )
    assert fast_text.speed_up(loaded(path)) is None


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cn"]), max_size=30), max_size=9))
@settings(deadline=None, max_examples=100)
def test_rows_with_characters_of_a_table(texts):
    table = np.zeros(0x110000, bool)
    table[0xE0:0x400] = table[0x1F600:] = True
    expected = [row for row, text in enumerate(texts) if any(table[ord(character)] for character in text)]
    assert fast_text._rows_with(table, texts) == expected
