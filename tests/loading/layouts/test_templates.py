"""python -m pytest tests/loading/layouts/test_templates.py

The expected ids are written down turn by turn, or are those of the conversation as jinja2 renders it whole, and as the
tokenizers library encodes it.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pickle
from pathlib import Path

import jinja2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from hpcdata import SFT, BestFit, ChatTemplate, Interleaved, TokenDataset, TokenLoader
from hpcdata.base.errors import UserError
from hpcdata.encoders.text import tokenizer as text
from hpcdata.samples import Example, Kind, Role
from tests.loading import made
from tests.selection import examples

BOS, EOS = 1, 2
SHIFT, BOI, EOI = 32001, 32001 + 16384, 32001 + 16385
SPEAKERS = {"system": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT}
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
THINKING = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\\n' }}{% endfor %}"
)
"""As Qwen3's: the last turn has more in front of it."""
LLAMA = """\
{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set said = messages[0]['content'] %}
{% else %}{% set rest = messages %}{% set said = false %}{% endif %}
{% for message in rest %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{% if message['role'] == 'user' %}
{{ bos_token + '[INST] ' + ('<<SYS>>\\n' + said + '\\n<</SYS>>\\n\\n' if loop.first and said else '') }}\
{{ message['content'].strip() + ' [/INST]' }}\
{% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}
{% endfor %}
"""
CORPUS = ["look at the picture, what is on it?", "a red house by the river", "system user assistant\nyou are kind"] * 9
TALKS = [
    [("system", "you are kind"), ("user", "what is on it?"), ("assistant", "a red house")],
    [("user", "look at it"), ("assistant", "yes"), ("user", "and the river?"), ("assistant", "it is by the house")],
    [("user", "what?")],
]


def said(role: str, *ids: int):
    return made.text(*ids, role=SPEAKERS[role], loss=role == "assistant")


def dataset_of(folder: Path, *samples, **manifest) -> TokenDataset:
    examples = [Example(index=at, key=str(at), spans=tuple(spans)) for at, spans in enumerate(samples)]
    return TokenDataset(made.make_dataset(folder, made.split(examples, (2, 0, 1)), **manifest))


def rows_of(dataset: TokenDataset, layout) -> list[list[int]]:
    """The valid ids of each row, those without a label as negative numbers."""
    arrays = layout.bind(dataset.manifest).batch(dataset, np.arange(len(dataset))).arrays
    ids = np.where(arrays["labels"] == arrays["input_ids"], arrays["input_ids"], -arrays["input_ids"])
    return [row[mask].tolist() for row, mask in zip(ids, arrays["attention_mask"], strict=True)]


def train(folder: Path, template: str, **config) -> Path:
    """A tokenizer of bytes, with a chat template beside it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet, specials = pre_tokenizers.ByteLevel.alphabet(), ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    values = {"chat_template": template, "bos_token": "<s>", "eos_token": "</s>", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(values))
    return folder


def talks_of(folder: Path, tokenizer: Path, talks=TALKS) -> TokenDataset:
    """The turns as a run stores them: each text encoded by itself."""
    identity = text.identify(str(tokenizer), add_image_token=False, use_slow_tokenizer=False)
    engine = text.build(identity, str(tokenizer))
    samples = [[said(role, *engine.encode([words])[0]) for role, words in talk] for talk in talks]
    return dataset_of(folder, *samples, text=dataclasses.asdict(identity))


def test_unidisc_writes_a_bos_and_an_eos_for_each_turn(tmp_path):
    image = made.image(0, 7, 9, 0)
    codes = [BOI, *(SHIFT + code for code in (0, 7, 9, 0)), EOI]
    dataset = dataset_of(
        tmp_path,
        [said("user", 5, 32000), image, said("user", 6), said("assistant", 7, 8), said("user", 9)],
        [image, said("system", 3), said("user", 4), said("assistant", 5)],
        [made.text(5, 6), image],
        [image],
        [],
        [said("assistant", 7), image, said("assistant", 8)],
    )
    found = rows_of(dataset, SFT(max_length=40, template="unidisc"))
    no = [-i for i in codes]
    assert found[0] == [-BOS, -EOS, -BOS, -5, -32000, *no, -6, -EOS, -BOS, 7, 8, EOS, -BOS, -9, -EOS]
    assert found[1] == [-BOS, *no, -3, -EOS, -BOS, -4, -EOS, -BOS, 5, EOS]
    assert found[2] == [-BOS, 5, 6, *no, EOS]
    assert found[3] == [-BOS, *no, -EOS]
    assert found[4] == []
    assert found[5] == [-BOS, -EOS, -BOS, 7, *no, 8, EOS]
    everything = rows_of(dataset, Interleaved(max_length=40, template="unidisc"))
    assert everything == [[abs(i) for i in row] for row in found]


def test_what_the_system_says(tmp_path):
    folder = train(tmp_path / "tokenizer", CHATML)
    dataset = talks_of(tmp_path / "data", folder)
    engine = Tokenizer.from_file(str(folder / "tokenizer.json"))
    prompt = engine.encode("you are kind").ids
    template = ChatTemplate(name="unidisc", system="you are kind", text_tokenizer=str(folder))
    first, second, _ = rows_of(dataset, Interleaved(max_length=90, template=template))
    assert first[: len(prompt) + 3] == [BOS, *prompt, EOS, BOS]
    assert second[: len(prompt) + 3] == [BOS, *prompt, EOS, BOS]
    options = dataclasses.asdict(template)
    assert rows_of(dataset, Interleaved(max_length=90, template=options))[1] == second


@pytest.mark.parametrize("template", [CHATML, LLAMA, THINKING], ids=["chatml", "llama", "thinking"])
@pytest.mark.parametrize("place", ["config", "named", "jinja", "json", "file"])
def test_the_tokenizers_own_template(tmp_path, template, place):
    """What stands around turns is encoded by itself; what the assistant says is trained on, with its end."""
    config = {"named": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": template}]}
    folder = train(tmp_path / "tokenizer", config.get(place, template))
    name = "chat"
    if place == "jinja":
        (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>", "chat_template": "?"}')
        (folder / "chat_template.jinja").write_text(template)
    elif place == "json":
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    elif place == "file":
        name = str(tmp_path / "mine.jinja")
        Path(name).write_text(template)
        (folder / "tokenizer_config.json").write_text("{}")
    dataset = talks_of(tmp_path / "data", folder)
    layout = SFT(max_length=300, template=ChatTemplate(name=name, text_tokenizer=str(folder)))
    for talk, found in zip(TALKS, rows_of(dataset, layout), strict=True):
        assert found == expected_of(folder, template, talk)
    assert rows_of(dataset, pickle.loads(pickle.dumps(layout.bind(dataset.manifest)))) == rows_of(dataset, layout)
    by_folder = ChatTemplate(name=name, text_tokenizer=str(folder / "tokenizer.json"))
    assert rows_of(dataset, SFT(max_length=300, template=by_folder)) == rows_of(dataset, layout)


def expected_of(folder: Path, template: str, talk) -> list[int]:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = lambda message: 1 / 0
    messages = [{"role": role, "content": words} for role, words in talk]
    whole = environment.from_string(template).render(messages=messages, bos_token="<s>", eos_token="</s>")
    engine, trained, at, edges = Tokenizer.from_file(str(folder / "tokenizer.json")), np.zeros(len(whole), bool), 0, [0]
    for role, words in talk:
        at = whole.index(words, at) + len(words)
        edges += [at - len(words), at]
        if role == "assistant":
            end = next(whole.index(mark, at) + len(mark) for mark in ("<|im_end|>", "</s>") if mark in whole)
            trained[at - len(words) : end] = True
    ids, starts = [], []
    for first, stop in itertools.pairwise([*edges, len(whole)]):
        encoding = engine.encode(whole[first:stop], add_special_tokens=False)
        ids += encoding.ids
        starts += [first + start for start, _ in encoding.offsets]
    if template is not LLAMA:  # where no word reaches over the edge of a turn
        assert ids == engine.encode(whole, add_special_tokens=False).ids
    return [i if trained[start] else -i for i, start in zip(ids, starts, strict=True)]


def test_a_tokenizer_that_puts_a_space_before_texts_does_not_put_two(tmp_path):
    """SentencePiece and Llama's tokenizers: the turns have theirs already."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["[INST] look at it [/INST] yes", *CORPUS]),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=300,
        byte_fallback=True,
        hard_vocab_limit=False,
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": LLAMA}))
    dataset = talks_of(tmp_path / "data", folder)
    found = rows_of(dataset, Interleaved(max_length=300, template=ChatTemplate(text_tokenizer=str(folder))))
    bound = Interleaved(max_length=300, template=ChatTemplate(text_tokenizer=str(folder))).bind(dataset.manifest)
    assert rows_of(dataset, pickle.loads(pickle.dumps(bound))) == found
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    expected = []
    for user, assistant in (("look at it", "yes"), ("and the river?", "it is by the house")):
        turn = [BOS, *model.encode("[INST]"), *model.encode(user), *model.encode("[/INST]"), *model.encode(assistant)]
        expected += [*turn, model.piece_to_id("\u2581"), EOS]
    assert found[1] == expected
    assert model.decode([i for i in found[1] if i > EOS]).startswith("[INST] look at it [/INST] yes")


@pytest.mark.parametrize(
    ("template", "talk", "message"),
    [
        (LLAMA, [("assistant", "yes")], "turns of assistant: TemplateError: roles must alternate"),
        ("{{ messages[0]['content'] }}", TALKS[1], "does not write each text once, in order"),
        (
            "{% for m in messages %}{{ m['content'] + ('|' if loop.last else '') }}{% endfor %}",
            TALKS[1],
            "turn 1 otherw",
        ),
        ("{{ messages[0].__class__.__mro__ }}", TALKS[2], "SecurityError"),
        ("{% for %}", TALKS[2], "TemplateSyntaxError"),
        ("{{ 9 / 0 }}", TALKS[2], "ZeroDivisionError"),
        ("{{ messages.foo.bar }}", TALKS[2], "UndefinedError"),
    ],
)
def test_templates_that_cannot_be_used_are_refused(tmp_path, template, talk, message):
    folder = train(tmp_path / "tokenizer", template)
    dataset = talks_of(tmp_path / "data", folder, [talk])
    with pytest.raises(UserError, match=message) as caught:
        rows_of(dataset, SFT(max_length=90, template=ChatTemplate(text_tokenizer=str(folder))))
    assert "\n" not in str(caught.value)
    assert "tokenizer_config.json" in str(caught.value)


def test_conversations_that_a_template_cannot_write_may_be_left_out(tmp_path):
    """Among others, alone in a row and packed; they are counted."""
    folder = train(tmp_path / "tokenizer", LLAMA)
    talks = [*TALKS, [("assistant", "yes"), ("user", "what?")], TALKS[1]]
    dataset = talks_of(tmp_path / "data", folder, talks)
    options = {"max_length": 300, "template": ChatTemplate(text_tokenizer=str(folder))}
    with pytest.raises(UserError, match=r"sample 3: .*turns of assistant, user: TemplateError: roles must alternate"):
        rows_of(dataset, SFT(**options))
    found = rows_of(dataset, SFT(too_long="skip", **options))
    assert [len(row) > 0 for row in found] == [True, True, True, False, True]
    for packing in (None, BestFit(length=300)):
        layout = SFT(too_long="skip", **options)
        loader = TokenLoader(
            dataset, global_batch_size=1, layout=layout, packing=packing, num_epochs=1, drop_last=False, shuffle=False
        )
        texts = sum(int((batch["labels"] != -100).sum()) for batch in loader)
        assert (loader.counts.samples, loader.counts.skipped_samples) == (4, 1)
        assert texts == sum(i > 0 for row in found for i in row)


def test_options_are_checked(tmp_path):
    folder = train(tmp_path / "tokenizer", CHATML)
    (folder / "tokenizer_config.json").write_text("{}")
    dataset = talks_of(tmp_path / "data", folder)
    other = train(tmp_path / "other", CHATML, vocabulary="another")
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + "\n")
    for layout, message in (
        (SFT(max_length=9, template=ChatTemplate(text_tokenizer=str(folder))), "has no chat template"),
        (SFT(max_length=9, template=ChatTemplate(text_tokenizer=str(other))), "pass text_tokenizer=FILE"),
        (SFT(max_length=9, template=str(tmp_path / "gone.jinja")), "pass text_tokenizer=FILE"),
        (SFT(max_length=9, template="unidisc", add_bos=True), "add_bos and add_eos are for samples without"),
    ):
        with pytest.raises(UserError, match=message):
            layout.bind(dataset.manifest)
    gone = ChatTemplate(name=str(tmp_path / "gone.jinja"), text_tokenizer=str(folder))
    with pytest.raises(UserError, match=r"expected chat, unidisc, or a file of Jinja"):
        SFT(max_length=9, template=gone).bind(dataset.manifest)
    plain = dataset_of(tmp_path / "plain", [said("user", 4)], text={**made.TEXT, "eos_id": None})
    with pytest.raises(UserError, match="needs a text tokenizer with bos and eos"):
        SFT(max_length=9, template="unidisc").bind(plain.manifest)


def test_states_know_their_template(tmp_path):
    dataset = dataset_of(tmp_path, *([said("user", 5, at), said("assistant", 7)] for at in range(9)))
    options = {"global_batch_size": 2, "num_epochs": 1}
    loader = TokenLoader(dataset, layout=SFT(max_length=12, template="unidisc"), **options)
    batches = iter(loader)
    next(batches)
    state = json.loads(json.dumps(loader.state_dict()))
    again = pickle.loads(pickle.dumps(TokenLoader(dataset, layout=SFT(max_length=12, template="unidisc"), **options)))
    again.load_state_dict(state)
    assert [batch["input_ids"].tolist() for batch in again] == [batch["input_ids"].tolist() for batch in batches]
    with pytest.raises(UserError, match="layout_digest"):
        TokenLoader(dataset, layout=SFT(max_length=12), **options).load_state_dict(state)
    assert "template" not in SFT(max_length=12).bind(dataset.manifest).settings()


def slow_row(spans, *, everything: bool) -> list[int]:
    """As UniDisc writes it, one by one: [(id or -id without a label)]."""
    roles = [span.role if span.kind == Kind.TEXT else None for span in spans]
    for at, role in enumerate(roles):
        if role is None:
            before = next((r for r in reversed(roles[:at]) if r is not None), None)
            behind = next((r for r, s in zip(roles[at:], spans[at:], strict=True) if s.kind == Kind.TEXT), Role.NONE)
            roles[at] = behind if before is None else before
    turns: list[tuple[Role, list]] = []
    for role, span in zip(roles, spans, strict=True):
        if not turns or turns[-1][0] != role:
            turns.append((role, []))
        turns[-1][1].append(span)
    ids = [] if not turns or turns[0][0] == Role.SYSTEM else [-BOS, -EOS]
    for _, of_turn in turns:
        ids.append(-BOS)
        for span in of_turn:
            if span.kind == Kind.IMAGE:
                ids += [-BOI, *(-SHIFT - int(code) for code in span.ids), -EOI]
            else:
                ids += [int(i) if span.loss else -int(i) for i in span.ids]
        texts = [span for span in of_turn if span.kind == Kind.TEXT]
        ids.append(EOS if texts and texts[-1].loss else -EOS)
    return [abs(i) for i in ids] if everything else ids


spans_of = st.lists(
    st.one_of(
        st.builds(
            lambda ids, role: said(role, *ids),
            st.lists(st.integers(3, 31999), min_size=1, max_size=5),
            st.sampled_from(["user", "assistant", "system"]),
        ),
        st.just(made.image(1, 2, 3, 4)),
    ),
    max_size=6,
).filter(lambda spans: not spans or any(span.kind == Kind.TEXT for span in spans))


@settings(max_examples=examples(30), deadline=None)
@given(samples=st.lists(spans_of, min_size=1, max_size=8), layout=st.sampled_from([SFT, Interleaved]))
def test_agrees_with_the_slow_way(tmp_path_factory, samples, layout):
    """Rows of their own and packed ones, in many parts; what is too long loses its end."""
    dataset = dataset_of(tmp_path_factory.mktemp("made"), *samples)
    expected = [slow_row(spans, everything=layout is Interleaved) for spans in samples]
    assert rows_of(dataset, layout(max_length=99, template="unidisc")) == expected
    cut = rows_of(dataset, layout(max_length=11, template="unidisc", too_long="skip"))
    assert all(found in ([], whole[:11]) for found, whole in zip(cut, expected, strict=True))
    if not any(expected):
        return
    packed = TokenLoader(
        dataset,
        global_batch_size=1,
        layout=layout(template="unidisc"),
        packing=BestFit(length=120),
        shuffle=False,
        drop_last=False,
        num_epochs=1,
    )
    found = []
    for batch in packed:
        signed = batch["input_ids"].where(batch["labels"] == batch["input_ids"], -batch["input_ids"])
        found += [
            signed[batch["segment_ids"] == segment].tolist()
            for segment in range(1, int(batch["segment_ids"].max()) + 1)
        ]
    no_first_label = [[-abs(row[0]), *row[1:]] for row in expected if row]  # another sample may stand before it
    assert sorted(found) == sorted(no_first_label)
