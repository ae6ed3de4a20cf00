"""Ids of both engines, names of control tokens, hostile texts and files.

pytest tests/encoders/text/test_tokenizer.py
"""

import io
import itertools
import json
import logging
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from hpcdata.base.errors import UserError
from hpcdata.encoders.text import engines
from hpcdata.encoders.text import tokenizer as text
from hpcdata.samples import BadSample, Reason
from tests.selection import examples

CORPUS = [
    "a red house stands beside the blue river",
    "two black cats sleep on an old wooden chair",
    "Ein rotes Haus steht am Fluss; the cat's picture, 12 x 34 cm!",
    "the <b>bold</b> letters s and e < > / | are text too",
] * 20


def train_bpe(path: Path, *, specials: tuple[str, ...] = ("<s>", "</s>", "<unk>")) -> Path:
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if "<s>" in specials:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", specials.index("<s>")), ("</s>", specials.index("</s>"))]
        )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=6, pad_id=50)
    tokenizer.save(str(path))
    return path


def train_unigram(path: Path) -> Path:
    """Like T5's: the control tokens are pieces of the model."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.save(str(path))
    return path


def train_sentencepiece(path: Path, **options) -> Path:
    """Like Llama-2's."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=350,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
        num_threads=1,
        **options,
    )
    path.write_bytes(model.getvalue())
    return path


TRAINERS: dict[str, Callable[[Path], Path]] = {
    "bpe": lambda folder: train_bpe(folder / "tokenizer.json"),
    "unigram": lambda folder: train_unigram(folder / "tokenizer.json"),
    "sentencepiece": lambda folder: train_sentencepiece(folder / "tokenizer.model"),
}


@pytest.fixture(scope="module", params=TRAINERS)
def trained(request, tmp_path_factory) -> Path:
    return TRAINERS[request.param](tmp_path_factory.mktemp(request.param))


def made(path: Path | str, *, add_image_token: bool = False, use_slow_tokenizer: bool = False, **chosen):
    identity = text.identify(
        str(path), add_image_token=add_image_token, use_slow_tokenizer=use_slow_tokenizer, **chosen
    )
    return identity, text.build(identity, str(path))


def rows(tokenizer: text.TextTokenizer, texts: list[str]) -> list[list[int]]:
    ids, offsets = tokenizer.encode(texts)
    assert ids.dtype == np.int32
    assert offsets.dtype == np.int64
    assert len(offsets) == len(texts) + 1
    assert offsets[0] == 0
    assert offsets[-1] == len(ids)
    return [ids[start:end].tolist() for start, end in itertools.pairwise(offsets)]


def test_ids_are_whole_texts_without_control_tokens(trained):
    """Truncation, padding and the template stored in a tokenizer.json are off."""
    identity, tokenizer = made(trained)
    texts = [CORPUS[0], "", CORPUS[1], CORPUS[0] * 3]
    ids = rows(tokenizer, texts)
    assert ids[1] == []
    assert tokenizer.decode(ids[0]) == CORPUS[0]
    assert len(ids[3]) > 2.5 * len(ids[0])
    controls = {identity.bos_id, identity.eos_id, identity.pad_id} - {None}
    flat = set(itertools.chain.from_iterable(ids))
    assert not controls & flat
    assert max(flat) < identity.vocab_size
    assert rows(tokenizer, []) == []


@pytest.mark.parametrize(
    "literal", ["</s>", "<s>", "<pad>", "say </s> twice</s>", "<s>x</s>", "</s></s>", "a </s> <image> b"]
)
@pytest.mark.parametrize("add_image_token", [False, True])
def test_letters_of_control_tokens_are_text(trained, literal, add_image_token):
    identity, tokenizer = made(trained, add_image_token=add_image_token)
    ids = rows(tokenizer, [CORPUS[0], literal, CORPUS[1]])
    controls = {identity.bos_id, identity.eos_id, identity.pad_id} - {None}
    assert not controls & set(ids[1])
    assert ids[1]
    assert ids[1].count(identity.image_token_id) == (literal.count("<image>") if add_image_token else 0)
    plain = rows(tokenizer, [CORPUS[0], CORPUS[1]])
    assert [ids[0], ids[2]] == plain, "its neighbours in the batch stay"


def test_the_unigram_model_would_find_control_tokens(tmp_path):
    """The danger that the test above guards against is real."""
    raw = Tokenizer.from_file(str(train_unigram(tmp_path / "tokenizer.json")))
    raw.encode_special_tokens = True
    assert raw.token_to_id("</s>") in raw.encode("a </s> b", add_special_tokens=False).ids


def test_added_image_token(trained):
    plain, _ = made(trained)
    identity, tokenizer = made(trained, add_image_token=True)
    assert plain.image_token_id is None
    assert identity.image_token_id == plain.vocab_size
    assert identity.vocab_size == plain.vocab_size + 1
    assert identity.sha256 == plain.sha256
    ids = rows(tokenizer, ["<image>", "<image><image>", "the river <image> beside", "no picture"])
    image = identity.image_token_id
    assert ids[0] == [image]
    assert ids[1] == [image, image]
    assert ids[2].count(image) == 1
    assert image not in (ids[2][0], ids[2][-1])
    assert image not in ids[3]
    assert "<image>" in tokenizer.decode(ids[2])


@pytest.mark.parametrize("special", [True, False])
def test_an_image_token_that_is_there_already_keeps_its_id(tmp_path, special):
    path = train_bpe(tmp_path / "tokenizer.json", specials=("<unk>", "<image>"))
    content = json.loads(path.read_text())
    for token in content["added_tokens"]:
        token["special"] = special
    path.write_text(json.dumps(content))
    identity, tokenizer = made(path, add_image_token=True)
    assert identity.image_token_id == 1
    assert identity.vocab_size == Tokenizer.from_file(str(path)).get_vocab_size()
    assert rows(tokenizer, ["a <image> b"])[0].count(1) == 1
    assert made(path)[0].image_token_id is None


def test_an_image_piece_of_sentencepiece_keeps_its_id(tmp_path):
    for kind in ("user_defined_symbols", "control_symbols"):
        path = train_sentencepiece(tmp_path / f"{kind}.model", **{kind: ["<image>"]})
        identity, tokenizer = made(path, add_image_token=True)
        assert identity.image_token_id == 3
        assert identity.vocab_size == 350
        assert rows(tokenizer, ["a <image> b"])[0].count(3) == 1


def test_names_of_control_tokens(tmp_path):
    sp = made(train_sentencepiece(tmp_path / "tokenizer.model"))[0]
    assert (sp.engine, sp.unk_id, sp.bos_id, sp.eos_id, sp.pad_id) == ("sentencepiece", 0, 1, 2, None)
    bpe = made(train_bpe(tmp_path / "tokenizer.json"))[0]
    assert (bpe.engine, bpe.bos_id, bpe.eos_id, bpe.pad_id, bpe.unk_id) == ("tokenizers", 0, 1, None, 2)
    config = {"bos_token": None, "eos_token": {"content": "</s>", "lstrip": False}, "pad_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": "</s>", "unk_token": "</s>"}))
    named = made(tmp_path)[0]
    assert (named.bos_id, named.eos_id, named.pad_id, named.unk_id) == (None, 1, 2, 1)


def test_a_piece_that_looks_like_a_control_token_is_none(tmp_path):
    """Qwen's vocabulary has `<s>` as an ordinary piece."""
    path = train_bpe(tmp_path / "tokenizer.json")
    content = json.loads(path.read_text())
    content["added_tokens"] = content["added_tokens"][1:]
    content["post_processor"] = None
    path.write_text(json.dumps(content))
    assert made(path)[0].bos_id is None


def test_letters_of_control_tokens_have_the_ids_of_letters(tmp_path):
    path = train_bpe(tmp_path / "tokenizer.json")
    content = json.loads(path.read_text())
    content |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    expected = Tokenizer.from_str(json.dumps(content)).encode("the s</s> and", add_special_tokens=False).ids
    assert rows(made(path)[1], ["the s</s> and"]) == [expected]


def test_a_folder_has_two_engines(tmp_path, caplog):
    train_bpe(tmp_path / "tokenizer.json")
    assert made(tmp_path)[0].engine == "tokenizers"
    with caplog.at_level(logging.INFO):
        assert made(tmp_path, use_slow_tokenizer=True)[0].engine == "tokenizers"
    assert "data.use_slow_tokenizer has no effect" in caplog.text
    train_sentencepiece(tmp_path / "tokenizer.model")
    assert made(tmp_path)[0].engine == "tokenizers"
    assert made(tmp_path, use_slow_tokenizer=True)[0].engine == "sentencepiece"
    (tmp_path / "tokenizer.json").unlink()
    assert made(tmp_path)[0].engine == "sentencepiece"


def test_tokens_added_behind_a_sentencepiece_vocabulary_are_counted(tmp_path):
    train_sentencepiece(tmp_path / "tokenizer.model")
    (tmp_path / "added_tokens.json").write_text('{"<pad>": 350}')
    (tmp_path / "tokenizer_config.json").write_text(
        '{"pad_token": "<pad>", "added_tokens_decoder": {"1": {"content": "<s>"}, "351": {"content": "<extra>"}}}'
    )
    identity, tokenizer = made(tmp_path, add_image_token=True)
    assert (identity.pad_id, identity.image_token_id, identity.vocab_size) == (350, 352, 353)
    assert tokenizer.decode([*rows(tokenizer, ["red"])[0], 350, 352]) == "red<pad><image>"


@pytest.mark.parametrize("image", [7, 500, 5000])
def test_a_chosen_image_id_stands_where_the_marker_stood(trained, image):
    """Below the vocabulary, where a piece has it as well, and behind it."""
    plain, reference = made(trained, add_image_token=True)
    identity, tokenizer = made(trained, add_image_token=True, image_token_id=image)
    assert identity.image_token_id == image
    assert identity.vocab_size == max(plain.vocab_size - 1, image + 1)
    texts = ["<image>", "the river <image> beside", "</s> <image><image>", "no picture", *CORPUS[:2]]
    stored = [[image if i == plain.image_token_id else i for i in row] for row in rows(reference, texts)]
    assert rows(tokenizer, texts) == stored
    assert tokenizer.decode(rows(tokenizer, [CORPUS[0]])[0]) == CORPUS[0]
    if image >= plain.vocab_size:
        assert "<image>" in tokenizer.decode(stored[1])


def test_ids_of_unidisc(trained, tmp_path):
    """`<image>` at 811, padding at the tokenizer's own or behind the vocabulary; `<image>` behind that at default."""
    plain, _ = made(trained)
    behind = plain.vocab_size if plain.pad_id is None else plain.pad_id
    identity, _ = made(trained, add_image_token=True, image_token_id="unidisc", pad_id="unidisc")
    assert (identity.image_token_id, identity.pad_id) == (811, behind)
    assert identity.vocab_size == 812
    assert (identity.bos_id, identity.eos_id, identity.sha256) == (plain.bos_id, plain.eos_id, plain.sha256)
    default, _ = made(trained, add_image_token=True, pad_id="unidisc")
    assert (default.pad_id, default.image_token_id) == (behind, plain.vocab_size + (plain.pad_id is None))
    assert made(trained, pad_id="unidisc")[0].vocab_size == max(plain.vocab_size, behind + 1)
    path = train_bpe(tmp_path / "tokenizer.json", specials=("<unk>", "[PAD]", "<image>"))
    assert made(path, add_image_token=True, pad_id="unidisc")[0].pad_id == 1
    moved, tokenizer = made(path, add_image_token=True, image_token_id=9)
    assert (moved.image_token_id, rows(tokenizer, ["a <image> b"])[0].count(2)) == (9, 0)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"image_token_id": 7}, "add data.add_image_token=true"),
        ({"image_token_id": 7, "pad_id": 7, "add_image_token": True}, "id 7 would be <image> and another special"),
        ({"image_token_id": 1, "add_image_token": True}, "id 1 would be <image> and another special"),
        ({"image_token_id": -1, "add_image_token": True}, "expected ids from 0 on"),
        ({"pad_id": -100}, "expected ids from 0 on"),
    ],
)
def test_ids_that_mean_two_things_are_refused(trained, chosen, message):
    with pytest.raises(UserError, match=message):
        made(trained, **chosen)


def test_another_file_than_the_plans_is_refused(tmp_path):
    path = train_bpe(tmp_path / "tokenizer.json")
    identity, _ = made(path)
    path.write_text(path.read_text() + "\n")
    with pytest.raises(UserError, match="the plan was made with"):
        text.build(identity, str(path))


class Malicious:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


@pytest.mark.parametrize("engine", ["reference", "auto"])
def test_bpe_dropout_is_not_applied(tmp_path, caplog, engine):
    """Else the ids of a text are other ones whenever it is encoded, in a resumed run too."""
    path = train_bpe(tmp_path / "tokenizer.json")
    expected = rows(made(path, add_image_token=True)[1], CORPUS)
    content = json.loads(path.read_bytes())
    content["model"]["dropout"] = 0.4
    path.write_text(json.dumps(content))
    identity = text.identify(str(path), add_image_token=True, use_slow_tokenizer=False)
    tokenizer = text.build(identity, str(path), engine=engine)
    assert rows(tokenizer, CORPUS) == expected
    assert rows(tokenizer, CORPUS) == expected
    assert "dropout of 0.4" in caplog.text


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "tokenizer.pkl", "vqgan.ckpt"])
@pytest.mark.parametrize("in_folder", [False, True])
def test_a_pickle_that_claims_to_be_a_tokenizer_does_not_run(tmp_path, name, in_folder):
    (tmp_path / "folder").mkdir()
    path, target = tmp_path / "folder" / name, tmp_path / "ran"
    path.write_bytes(pickle.dumps(Malicious(target)))
    (tmp_path / "folder" / "tokenizer_config.json").write_bytes(pickle.dumps(Malicious(target)))
    with pytest.raises(UserError, match=r"text\.tokenizer=") as caught:
        made(path.parent if in_folder else path)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    pickle.loads(path.read_bytes()).close()
    assert target.exists(), "it would have run"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone/x", None, "no such file or folder; names of a model hub are not downloaded"),
        ("folder", "", "the folder has neither tokenizer.json nor tokenizer.model"),
        ("a.json", b"{}", "a.json is not a tokenizer.json of the tokenizers library"),
        ("a.json", b'{"model": {"type": "BPE"}}', "a.json is not a tokenizer.json"),
        ("a.json", b"{", "a.json is not a tokenizer.json"),
        ("a.model", b"", "a.model is not a SentencePiece model"),
        ("a.model", b"caption\n" * 9, "a.model is not a SentencePiece model"),
        ("a.model", bytes(range(256)), "a.model is not a SentencePiece model"),
    ],
)
def test_what_is_no_tokenizer(tmp_path, name, content, message):
    path = tmp_path / name
    if content == "":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        made(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a\ud83d b", r"lone surrogate U\+D83D at character 1"),
        ("\udcff", r"lone surrogate U\+DCFF at character 0"),
    ],
)
def test_lone_surrogates_are_rejected(value, message):
    with pytest.raises(BadSample, match=message) as caught:
        text.check_text(value)
    assert caught.value.reason == Reason.UNREADABLE_TEXT


@settings(max_examples=examples(60), deadline=None)
@given(texts=st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_any_text_encodes_the_same_alone_and_in_a_batch(trained, texts):
    for value in texts:
        text.check_text(value)
    identity, tokenizer = made(trained, add_image_token=True)
    together = rows(tokenizer, texts)
    assert together == [rows(tokenizer, [value])[0] for value in texts]
    assert all(0 <= token < identity.vocab_size for row in together for token in row)


def test_identify_needs_neither_torch_nor_transformers(trained):
    code = (
        "import sys; from hpcdata.encoders.text import tokenizer as text\n"
        "text.build(text.identify(sys.argv[1], add_image_token=True, use_slow_tokenizer=False), sys.argv[1])\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(trained)], check=True)


@pytest.fixture(scope="session")
def mistral_model(tmp_path_factory) -> Path:
    """A real SentencePiece vocabulary of 32,000, from a wheel on the package index."""
    folder = Path.home() / ".cache" / "hpcdata-tests"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), "mistral-common==1.13.1"]
    wheels = list(folder.glob("mistral_common-*.whl"))
    if not wheels and subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mistral-common cannot be downloaded here")
    import zipfile

    wheel = next(folder.glob("mistral_common-*.whl"))
    target = tmp_path_factory.mktemp("mistral") / "tokenizer.model"
    with zipfile.ZipFile(wheel) as archive:
        target.write_bytes(archive.read("mistral_common/data/tokenizer.model.v1"))
    return target


@pytest.mark.slow
def test_a_real_sentencepiece_vocabulary(mistral_model):
    identity, tokenizer = made(mistral_model, add_image_token=True)
    assert (identity.vocab_size, identity.image_token_id) == (32001, 32000)
    assert (identity.bos_id, identity.eos_id, identity.pad_id, identity.unk_id) == (1, 2, None, 0)
    unidisc, _ = made(mistral_model, add_image_token=True, image_token_id="unidisc", pad_id="unidisc")
    assert (unidisc.vocab_size, unidisc.image_token_id, unidisc.pad_id) == (32001, 811, 32000)
    raw = sentencepiece.SentencePieceProcessor(model_file=str(mistral_model))
    assert rows(tokenizer, ["hello </s>", "Grüße 😀 <image>"]) == [
        [6312, 28709, 1867, 28713, 28767],
        [*raw.encode("Grüße 😀 "), 32000],
    ]


def test_large_texts_are_encoded_in_turn_to_the_same_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = train_bpe(tmp_path / "tokenizer.json")
    engine = text.build(text.identify(str(path), add_image_token=False, use_slow_tokenizer=False), str(path))
    texts = ["", *CORPUS[:4], "x" * 400, "</s> is text", *CORPUS[4:8], ""]
    ids, offsets = engine.encode(texts)
    for characters in (1, 60, 500):
        monkeypatch.setattr(engines, "_PART_BYTES", characters)
        found = engine.encode(texts)
        assert (found[0].tolist(), found[1].tolist()) == (ids.tolist(), offsets.tolist())
        assert (found[0].dtype, found[1].dtype) == (np.int32, np.int64)
