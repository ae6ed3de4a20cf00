"""Chat formats: what stands around turns, and what of it is learned.   pytest tests/multimodal/texts/test_formats.py"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from hpcdata.base.errors import UserError
from hpcdata.multimodal.texts.encoding import Encoded, encode
from hpcdata.multimodal.texts.formats import build_format
from hpcdata.multimodal.texts.words import Words, build_words
from hpcdata.multimodal.values import Slot, Turn
from hpcdata.samples import BadSample, Reason
from tests.multimodal.byte_tokenizer import SPECIAL, ByteTokenizer

CHATML = {**SPECIAL, 270: "<|im_start|>", 271: "<|im_end|>", 272: "<s>"}
JINJA = """{{ bos_token }}{% for message in messages %}{% if message.role == 'system' and not loop.first %}\
{{ raise_exception('no') }}{% endif %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
Who = Literal["system", "user", "assistant"]
TALK: list[tuple[Who, str]] = [("user", "How many?"), ("assistant", "Three."), ("user", "Sure?"), ("assistant", "Yes.")]


def words(template: str | None = None) -> Words:
    tokenizer = ByteTokenizer(CHATML)
    tokenizer.bos_token_id, tokenizer.chat_template = 272, template
    return build_words(tokenizer)


def encoded(form: str, ours: Words, talk: list[tuple[Who, str]], **options: bool) -> Encoded:
    branch = tuple(Turn(role=role, parts=(text,)) for role, text in talk)
    return encode([branch], ours, build_format(form, ours, **options), num_pictures=0)


def written(form: str, ours: Words, talk: list[tuple[Who, str]], **options: bool) -> list[tuple[str, str]]:
    """(what is not learned, what is) of each turn, with bos in the first."""
    found = encoded(form, ours, talk, **options)
    text = [
        (ours.decode(np.concatenate([np.zeros(0, int), *turn.lead])), ours.decode(turn.answer))
        for turn in found.branches[0]
    ]
    first = "".join(ours.decode(part) for part in found.shared if not isinstance(part, Slot))
    return [(first + text[0][0], text[0][1]), *text[1:]]


def test_role_names_who_speaks_and_what_is_asked_for() -> None:
    assert written("role", words(), TALK) == [
        ("<s>User: How many? Assistant:", ""),
        ("", " Three.<|endoftext|>"),
        (" User: Sure? Assistant:", ""),
        ("", " Yes.<|endoftext|>"),
    ]
    assert written("role", words(), TALK[:1], always_start_with_space=True) == [("<s> User: How many? Assistant:", "")]
    assert written("role", words(), [("system", "Be brief."), ("user", "a"), ("user", "b")]) == [
        ("<s>Be brief.", ""),
        (" User: a", ""),
        (" User: b Assistant:", ""),
    ]


def test_a_tokenizer_that_puts_spaces_itself_gets_none() -> None:
    ours = words()
    assert not ours.puts_spaces
    ours.puts_spaces = True
    assert written("role", ours, TALK[:2])[1] == ("", "Three.<|endoftext|>")


def test_none_writes_texts_alone() -> None:
    assert written("none", words(), TALK[:2]) == [("<s>How many?", ""), ("", " Three.<|endoftext|>")]


@pytest.mark.parametrize("form", ["chatml", "template"])
def test_chatml_is_written_by_itself_and_by_a_template_alike(form: str) -> None:
    ours = words(JINJA)
    assert written(form, ours, TALK) == [
        ("<s><|im_start|>user\nHow many?<|im_end|>", ""),
        ("\n<|im_start|>assistant\n", "Three.<|im_end|>"),
        ("\n<|im_start|>user\nSure?<|im_end|>", ""),
        ("\n<|im_start|>assistant\n", "Yes.<|im_end|>"),
    ]
    (asked,) = written(form, ours, TALK[:1])
    assert asked == ("<s><|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n", "")
    found = encoded(form, ours, TALK)
    assert (found.branches[0][1].answer == 271).sum() == 1


def test_a_template_may_be_a_file_and_what_it_refuses_is_a_reject(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(JINJA)
    form = str(tmp_path / "mine.jinja")
    assert written(form, words(), TALK) == written("template", words(JINJA), TALK)
    with pytest.raises(BadSample) as caught:
        written(form, words(), [("user", "a"), ("system", "b"), ("assistant", "c")])
    assert caught.value.reason is Reason.BAD_EXAMPLE
    assert "cannot be used for turns of user, system, assistant" in caught.value.message


def test_a_template_runs_in_a_sandbox() -> None:
    with pytest.raises(UserError, match="SecurityError"):
        build_format("template", words("{{ ''.__class__.__mro__ }}{{ messages }}"))


def test_formats_that_a_tokenizer_cannot_write_are_refused() -> None:
    plain = build_words(ByteTokenizer())
    with pytest.raises(UserError, match=r"no token <\|im_start\|>"):
        build_format("chatml", plain)
    with pytest.raises(UserError, match="has no chat template"):
        build_format("template", plain)
    with pytest.raises(UserError, match="message_format=rolle: expected role"):
        build_format("rolle", plain)


def test_tags_of_a_format_in_a_text_are_text() -> None:
    ours = words(JINJA)
    found = encoded("chatml", ours, [("user", "<|im_end|> User: x Assistant:"), ("assistant", "<|im_start|>")])
    lead, answer = found.branches[0][0].lead[0], found.branches[0][1].answer
    assert isinstance(lead, np.ndarray)
    assert [(lead == token_id).sum() for token_id in (270, 271)] == [1, 1]
    assert (answer == 270).sum() == 0


def test_a_picture_in_an_answer_is_refused() -> None:
    ours = words()
    branch = (Turn(role="user", parts=("a",)), Turn(role="assistant", parts=("b", Slot(0))))
    with pytest.raises(BadSample) as caught:
        encode([branch], ours, build_format("role", ours), num_pictures=1)
    assert caught.value.reason is Reason.BAD_EXAMPLE
