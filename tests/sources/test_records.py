"""python -m pytest tests/sources/test_records.py"""

import re

import pytest

from hpcdata.samples import BadSample, ImagePart, Reason, Role
from hpcdata.sources import parsing, records
from hpcdata.sources.base import InputFile, Options

OLD = InputFile(path="/base/a.jsonl", label="a.jsonl", format="jsonl", base="/base")
"""Of a plan that was made before records were looked through for media."""
HUMAN, GPT, SYSTEM = "human", "gpt", "system"


def parts_of(record, **options):
    """Parts in short: "<name>" of an image, (role, loss, text) of a text."""
    return [
        f"<{part.blob.path}>" if isinstance(part, ImagePart) else (part.role, part.loss, part.text)
        for part in records.sample_parts(record, OLD, Options(**options))
    ]


def conversation(*turns, **fields):
    return {"conversations": [{"from": speaker, "value": text} for speaker, text in turns], **fields}


PAIR = [(Role.NONE, True, "text"), "</base/a.jpg>"]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"image_path": "a.jpg", "text_prompt": "text"}, PAIR),
        ({"image": "a.jpg", "text": "text"}, PAIR),
        ({"image": ["a.jpg"], "caption": "text", "data_type": "image_text"}, PAIR),
        ({"image_path": "/x/b.jpg", "text": "text", "id": 3}, [PAIR[0], "</x/b.jpg>"]),
        ({"text_prompt": "text", "text": "other", "caption": "third", "image": "a.jpg"}, PAIR),
        ({"data_type": "text_pretrain", "text": "text"}, PAIR[:1]),
        ({"image": None, "text": "text"}, PAIR[:1]),
        ({"image": "", "text": "text"}, PAIR[:1]),
        ({"image": [], "text": "a <image> in words"}, [(Role.NONE, True, "a <image> in words")]),
    ],
)
def test_pairs_and_text_rows(record, expected):
    assert parts_of(record) == expected


USER, ANSWER = (Role.USER, False), (Role.ASSISTANT, True)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            conversation((HUMAN, "<image>\nWhat?"), (GPT, "A cat."), image="a.jpg"),
            ["</base/a.jpg>", (*USER, "\nWhat?"), (*ANSWER, "A cat.")],
        ),
        (
            conversation((HUMAN, "What?\n<image>"), (GPT, "A cat."), image="a.jpg"),
            [(*USER, "What?\n"), "</base/a.jpg>", (*ANSWER, "A cat.")],
        ),
        (
            conversation(("user", "<image><image>\n"), ("assistant", "Two: <image>"), image=["a", "b", "c"]),
            ["</base/a>", "</base/b>", (*ANSWER, "Two: "), "</base/c>"],
        ),
        (
            conversation((SYSTEM, "Be brief."), (HUMAN, "Hi"), (GPT, "Ho")),  # text-only rows omit the image
            [(Role.SYSTEM, False, "Be brief."), (*USER, "Hi"), (*ANSWER, "Ho")],
        ),
        (
            conversation((HUMAN, "No marker"), (GPT, "Ho"), image=["a", "b"]),
            ["</base/a>", "</base/b>", (*USER, "No marker"), (*ANSWER, "Ho")],
        ),
        (conversation((HUMAN, ""), (GPT, "Ho"), image="a"), ["</base/a>", (*ANSWER, "Ho")]),
    ],
)
def test_conversations(record, expected):
    """LLaVA: none, one or many images, and rows without; not exactly one `<image>`."""
    assert parts_of(record) == expected


def test_marker_stays_where_the_image_stands():
    record = conversation((HUMAN, "See <image> and\n<image>"), (GPT, "Ok"), image=["a", "b"])
    assert parts_of(record, keep_image_marker=True) == [
        (*USER, "See <image>"),
        "</base/a>",
        (*USER, " and\n<image>"),
        "</base/b>",
        (*ANSWER, "Ok"),
    ]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ([], Reason.BAD_RECORD),
        ("text", Reason.BAD_RECORD),
        (None, Reason.BAD_RECORD),
        ({}, Reason.MISSING_TEXT),
        ({"image": "a.jpg"}, Reason.MISSING_TEXT),
        ({"image": "a.jpg", "text": 3}, Reason.BAD_RECORD),
        ({"image": "a.jpg", "text": {}}, Reason.BAD_RECORD),
        ({"image": 3, "text": "text"}, Reason.BAD_RECORD),
        ({"image": [3], "text": "text"}, Reason.BAD_RECORD),
        ({"image": {"bytes": "x"}, "text": "text"}, Reason.BAD_RECORD),
        ({"image": ["a", "b"], "text": "text"}, Reason.BAD_RECORD),
        ({"text": ""}, Reason.EMPTY_TEXT),
        ({"text": " \n\u3000"}, Reason.EMPTY_TEXT),
        ({"text": "a\0b"}, Reason.UNREADABLE_TEXT),
        ({"conversations": []}, Reason.BAD_RECORD),
        ({"conversations": "hello"}, Reason.BAD_RECORD),
        ({"conversations": ["hello"]}, Reason.BAD_RECORD),
        ({"conversations": [{"from": "human"}]}, Reason.BAD_RECORD),
        ({"conversations": [{"from": "human", "value": 3}]}, Reason.BAD_RECORD),
        ({"conversations": [{"from": ["human"], "value": "Hi"}]}, Reason.BAD_RECORD),
        (conversation(("alien", "Hi")), Reason.BAD_RECORD),
        (conversation((HUMAN, "\0")), Reason.UNREADABLE_TEXT),
        (conversation((HUMAN, "<image>"), (GPT, "Ho")), Reason.BAD_RECORD),
        (conversation((HUMAN, "<image>"), (GPT, "Ho"), image=["a", "b"]), Reason.BAD_RECORD),
        (conversation((HUMAN, "<image><image>"), (GPT, "Ho"), image="a"), Reason.BAD_RECORD),
        (conversation((HUMAN, " "), (GPT, "")), Reason.EMPTY_TEXT),
        (conversation((HUMAN, "<image>"), image="a"), Reason.EMPTY_TEXT),
    ],
)
def test_rejects(record, reason):
    with pytest.raises(BadSample) as caught:
        parts_of(record)
    assert caught.value.reason == reason
    assert "/base" not in caught.value.message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"needs_image": False}, PAIR[:1]),
        ({"needs_text": False}, PAIR[1:]),
        ({"text_field": "title"}, [(Role.NONE, True, "title"), PAIR[1]]),
    ],
)
def test_options(options, expected):
    assert parts_of({"image": "a.jpg", "text": "text", "title": "title"}, **options) == expected


def test_a_row_without_what_is_needed():
    with pytest.raises(BadSample) as caught:
        parts_of({"text": "text"}, needs_text=False)
    assert caught.value.reason == Reason.MISSING_IMAGE


@pytest.mark.parametrize("record", [{"text": "text"}, {"content": "text"}, {"text": None, "content": "text"}])
def test_documents(record):
    (part,) = records.document_parts(record, OLD, Options())
    assert (part.text, part.loss) == ("text", True)


@pytest.mark.parametrize("extra", [{"image": "a.jpg"}, {"conversations": [{}]}])
def test_a_document_with_images_is_not_read_without_them(extra):
    with pytest.raises(BadSample, match=r"data\.source=jsonl"):
        records.document_parts({"text": "text", **extra}, OLD, Options())


NO_JSON = [b"", b"{", b"\xff{}", b'{"a": "\xff"}', b'{"a": NaN', b'{"a": 1}\0', b'{"a": "\0"}', b'{"a": nan}']
NO_JSON += [b"[" * 100_000, b'{"a":' * 100_000, b'{"a": 1} {"b": 2}', b"{'a': 1}", b"1e999", b'{"a": +Infinity}']
NO_JSON += [b"[" * 100_000 + b"NaN", b'{"a": "\\ud800}']


@pytest.mark.parametrize("data", NO_JSON)
def test_no_json(data):
    with pytest.raises(BadSample) as caught:
        parsing.load(data)
    assert caught.value.reason == Reason.BAD_JSON


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", '[1, {"b": NaN}]'])
def test_numbers_that_python_writes_are_read(number):
    line = b'{"score": %s, "text": "caf\\u00e9 \\ud83d\\ude00"}' % number.encode()
    assert records.document_parts(parsing.load(line), OLD, Options())[0].text == "caf\u00e9 \U0001f600"


@pytest.mark.parametrize("text", ["\\ud800", "a\\uDFFF", "\\ude00\\ud83d", "\\ud83dx\\ude00"])
def test_half_a_surrogate_pair_is_named(text):
    places = {'{"text": "%s"}': "'text'", '{"%s": 1}': "the key", '{"a": [NaN, "%s"]}': "'a[1]'", '"%s"': "the text"}
    places['{"messages": [{"content": "%s"}]}'] = "'messages[0].content'"
    for line, where in places.items():
        with pytest.raises(BadSample, match=f"half a surrogate pair in {re.escape(where)}") as caught:
            parsing.load((line % text).encode())
        assert caught.value.reason == Reason.UNREADABLE_TEXT
