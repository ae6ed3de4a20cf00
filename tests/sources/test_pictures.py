"""Which pictures records name, and what becomes of other media.   python -m pytest tests/sources/test_pictures.py"""

import base64
import os

import pytest

from hpcdata.samples import BadSample, ImagePart, Reason, Reject, Role, Sample
from hpcdata.sources import Options, records
from hpcdata.sources.base import InputFile
from tests.sources.source_files import images, json_lines, one_input, read_all, summary, write

NEW = InputFile(path="/base/a.jsonl", label="a.jsonl", format="jsonl", base="/base", roots=("/base",))
TEXT, PICTURE = (Role.NONE, True, "t"), "</base/x.png>"
USER, ANSWER = (Role.USER, False), (Role.ASSISTANT, True)
DATA = "data:image/png;base64," + base64.b64encode(b"bytes").decode()


def parts_of(record, file=NEW, **options):
    """Parts in short: "<path>" of an image or its bytes, (role, loss, text) of a text."""
    return [
        (part.blob.data or f"<{part.blob.path}>") if isinstance(part, ImagePart) else (part.role, part.loss, part.text)
        for part in records.sample_parts(record, file, Options(**options))
    ]


def refused(record, file=NEW, **options):
    with pytest.raises(BadSample) as caught:
        records.sample_parts(record, file, Options(**options))
    return caught.value.reason, caught.value.message


@pytest.mark.parametrize(
    "fields",
    [
        {"image": "x.png"},
        {"images": ["x.png"]},
        {"images": "x.png"},
        {"img": "x.png"},
        {"img_path": "x.png"},
        {"file_name": "x.png"},
        {"file_name": "x.png", "image": ""},
        {"image_url": "x.png"},
        {"image_url": {"url": "x.png"}},
        {"image": {"path": "x.png"}},
        {"image": {"path": "x.png", "bytes": None}},
        {"images": [{"path": "x.png"}]},
        {"image": "file:///base/x.png"},
        {"image": "/base/x.png"},
        {"image": "sub/../x.png", "url": "https://host/x.png", "video": None, "audios": []},
    ],
)
def test_a_picture_is_read_under_every_usual_name(fields):
    found = parts_of({**fields, "text": "t"})
    assert [os.path.normpath(item) if isinstance(item, str) else item for item in found] == [TEXT, PICTURE]


@pytest.mark.parametrize("fields", [{"image_url": DATA}, {"images": [DATA]}, {"image": {"bytes": b"bytes"}}])
def test_a_picture_in_the_record_itself(fields):
    assert parts_of({**fields, "text": "t"}) == [TEXT, b"bytes"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"video": "a.mp4"}, "holds a video"),
        ({"videos": ["a.mp4"], "image": "x.png"}, "holds a video"),
        ({"audio": {"path": "a.wav", "bytes": None}}, "holds sound"),
        ({"clip": "a.MP4"}, "clip names"),
        ({"Image": "x.png"}, "pictures are read from image_path, image, images"),
        ({"picture": b"bytes"}, "picture names"),
        ({"jpg": "x"}, "jpg names"),
        ({"filename": "a photo.jpeg"}, "filename names"),
        ({"meta": {"files": ["x.tiff"]}}, "meta names"),
        ({"url": "https://host/x.png?size=2"}, "url names"),
        ({"image_url": "https://host/x.png"}, "download them"),
        ({"images": ["x.png", "s3://bucket/x.png"]}, "download them"),
        ({"thumbnail": DATA}, "thumbnail names"),
        ({"file_name": "a.mp4"}, "file_name names"),
    ],
)
def test_media_that_are_not_read_make_no_text(fields, words):
    reason, message = refused({**fields, "text": "t"})
    assert reason is Reason.UNSUPPORTED_MEDIA
    assert words in message
    if "image" not in fields and "images" not in fields:
        assert parts_of({**fields, "text": "t"}, needs_image=False) == [TEXT], "who leaves pictures out gets texts"


@pytest.mark.parametrize(
    "fields",
    [
        {
            "url": "https://host/page.html",
            "id": "7",
            "image": None,
            "images": [],
            "score": 3,
            "video": "",
            "audio": False,
        },
        {"file_name": "report.pdf"},
        {"image_id": 7, "title": "What is a JPG"},
        {"img": {"path": None, "bytes": None}},
    ],
)
def test_a_row_without_media_is_a_text(fields):
    assert parts_of({**fields, "text": "t"}) == [TEXT]


def test_a_text_that_is_read_may_end_like_a_name():
    assert parts_of({"text": "t", "caption": "cat.jpg"}) == [TEXT]
    assert parts_of({"title": "cat.jpg", "text": "t"}, text_field="title") == [(Role.NONE, True, "cat.jpg")]


CHAT = [{"role": "user", "content": "<image>hi"}, {"role": "assistant", "content": "there"}]
PIECES = [{"type": "image", "image": "x.png"}, {"type": "text", "text": "hi"}]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": CHAT, "images": ["x.png"]},
        {"conversations": CHAT, "image": "x.png"},
        {"messages": [{"role": "user", "content": PIECES}, CHAT[1]]},
        {"messages": [{"role": "user", "content": [{"type": "image"}, "hi"]}, CHAT[1]], "images": ["x.png"]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x.png"}}, PIECES[1]]},
                CHAT[1],
            ]
        },
    ],
)
def test_chats(record):
    assert parts_of(record) == [PICTURE, (*USER, "hi"), (*ANSWER, "there")]


def talk(*turns, **fields):
    speakers = ("human", "gpt", "human", "gpt")
    return {
        "conversations": [{"from": who, "value": text} for who, text in zip(speakers, turns, strict=False)],
        **fields,
    }


@pytest.mark.parametrize(
    "record",
    [
        talk("<video>\nWhat happens?", "A cat jumps.", video="a.mp4"),
        talk("<image>\nWhat happens?", "A cat jumps.", video="a.mp4"),
        talk("<video>\nWhat happens?", "A cat jumps."),
        talk("What happens?\n<video>", "A cat jumps."),
        talk("First.", "Yes.", "See\n<audio>\nand tell", "No."),
        {"messages": [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}, CHAT[1]]},
    ],
)
def test_a_video_in_a_conversation_is_no_text(record):
    assert refused(record)[0] is Reason.UNSUPPORTED_MEDIA
    if "video" not in record:
        assert refused(record, needs_image=False)[0] is Reason.UNSUPPORTED_MEDIA


@pytest.mark.parametrize("text", ["<video>\n<source>\n</video>\nWhy?", "What is the <video> tag?"])
def test_talk_about_a_tag_stays_text(text):
    assert parts_of(talk(text, "<video> plays.")) == [(*USER, text), (*ANSWER, "<video> plays.")]


def test_old_plans_read_records_as_they_did():
    old = InputFile(path="/base/a.jsonl", label="a.jsonl", format="jsonl", base="/base")
    assert parts_of({"images": ["x.png"], "video": "a.mp4", "text": "t"}, old) == [TEXT]
    assert parts_of({"image": "../x.png", "text": "t"}, old) == [TEXT, "</base/../x.png>"]
    assert refused({"messages": CHAT}, old) == (Reason.MISSING_TEXT, "no text_prompt or text or caption in the record")
    assert parts_of(talk("<video>\nWhat?", "A cat."), old) == [(*USER, "<video>\nWhat?"), (*ANSWER, "A cat.")]


def test_a_conversation_under_another_name_is_named():
    message = refused({"id": 1, "conversation": CHAT})[1]
    assert message.endswith(
        "conversation is a list of objects, and conversations are read from conversations, messages"
    )
    assert "messages is empty" in refused({"messages": []})[1]


@pytest.mark.parametrize(
    "path", ["../x.png", "/etc/passwd", "a/../../x.png", "/base/../basex.png", "file:///etc/passwd", ".."]
)
def test_a_path_that_leads_out_of_the_folder_is_refused(path):
    reason, message = refused({"image": path, "text": "t"})
    assert reason is Reason.OUTSIDE_ROOT
    assert "data.outside_images=read" in message
    assert parts_of({"image": path, "text": "t"}, needs_image=False) == [TEXT]


def read_one(path, **settings):
    (record,) = read_all(one_input(path, **settings))
    return record


def test_a_link_that_leads_out_of_the_folder_is_refused_when_it_is_read(tmp_path):
    write(tmp_path / "secret/x.png", b"secret")
    write(tmp_path / "in/own.png", b"own")
    (tmp_path / "in/folder").symlink_to(tmp_path / "secret")
    (tmp_path / "in/link.png").symlink_to("own.png")
    (tmp_path / "alias").symlink_to("in")
    for name, expected in (("folder/x.png", None), ("link.png", b"own")):
        write(tmp_path / "in/a.jsonl", json_lines([{"image": name, "text": "t"}]))
        record = read_one(tmp_path / "alias/a.jsonl")
        if expected is not None:
            assert images(record) == [expected]
            continue
        with pytest.raises(BadSample, match=r"a link leads out of data\.image_root") as caught:
            images(record)
        assert caught.value.reason is Reason.OUTSIDE_ROOT
        assert images(read_one(tmp_path / "alias/a.jsonl", allows_outside=True)) == [b"secret"]


def test_pictures_lie_below_the_root_that_is_named(tmp_path):
    write(tmp_path / "pictures/coco/x.png", b"picture")
    path = write(tmp_path / "json/a.jsonl", json_lines([{"image": "coco/x.png", "text": "t"}]))
    with pytest.raises(BadSample, match="no such file") as caught:
        images(read_one(path))
    assert caught.value.reason is Reason.MISSING_IMAGE
    assert images(read_one(path, image_root=str(tmp_path / "pictures"))) == [b"picture"]
    write(path, json_lines([{"image": str(tmp_path / "pictures/coco/x.png"), "text": "t"}]))
    assert isinstance(read_one(path), Reject)
    assert images(read_one(path, image_root=str(tmp_path / "pictures"))) == [b"picture"]
    assert images(read_one(path, allows_outside=True)) == [b"picture"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"file_name": "x.png", "text": "t"}, "jsonl"),
        ({"file_name": "x.pdf", "text": "t"}, "text"),
        ({"images": ["x.png"], "text": "t"}, "jsonl"),
        ({"images": [], "content": "t"}, "text"),
        ({"messages": CHAT}, "jsonl"),
        ({"video": "a.mp4", "text": "t"}, "jsonl"),
    ],
)
def test_the_beginning_of_a_file_says_whether_records_name_pictures(tmp_path, row, expected):
    assert one_input(write(tmp_path / "a.jsonl", json_lines([row]))).format == expected


def test_a_document_that_names_a_picture_is_no_text_where_pictures_are_asked_for(tmp_path):
    rows = [{"text": "t"}, {"text": "t", "Image": "x.png"}, {"text": "t", "img": "x.png"}]
    file = one_input(write(tmp_path / "a.jsonl", json_lines(rows)), "text")
    assert summary(read_all(file)) == ["t", "unsupported_media", "unsupported_media"]
    assert summary(read_all(file, Options(needs_image=False))) == ["t", "t", "t"]


def test_a_copy_takes_the_pictures_that_are_files_and_refuses_what_it_would_lose(tmp_path):
    write(tmp_path / "x.png", b"picture")
    rows = [
        {"images": ["x.png"], "messages": [{"role": "tool", "content": 3}]},
        {"image_url": "https://host/x.png"},
        {"video": "a.mp4"},
        {"image": "../x.png"},
    ]
    options = Options(needs_image=False, needs_text=False, keeps_members=True)
    found = read_all(one_input(write(tmp_path / "a.jsonl", json_lines(rows)), "jsonl"), options)
    members = [[member.extension for member in record.members] for record in found if isinstance(record, Sample)]
    assert members == [["json", "png"], ["json"]]
    assert summary(found[2:]) == ["unsupported_media", "outside_root"]
