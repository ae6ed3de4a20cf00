"""The page of examples.   pytest tests/multimodal/gallery/test_page.py"""

import html.parser
import re

from hpcdata.multimodal.gallery.page import Entry, Mark, Part, Run, Shown, render

EVIL = "</pre><script>alert(1)</script>\"'&\x1b[31m\x00"


def entries(words: str = "a cat") -> list[Entry]:
    runs = (
        Run(text=f"User: {words}", kind="text", weight=0.0, count=3),
        Run(text="<im_patch>", kind="picture", weight=0.0, count=144),
        Run(text=words, kind="text", weight=0.5, count=2),
    )
    picture = Shown(
        jpeg=b"\xff\xd8",
        caption=words,
        marks=(Mark(x=1, y=2, label=words), Mark(x=1, y=2, width=3, height=4, group=11)),
    )
    return [
        Entry(
            title=words,
            fields=words,
            pictures=(picture,),
            crops=(picture,),
            parts=(Part(title=words, runs=runs),),
            facts=(words,),
            reject=words,
        ),
        Entry(title="example 2", fields="{}"),
    ]


class Reader(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_what_comes_from_data_is_text_wherever_it_stands():
    page = render(entries(EVIL), title=EVIL, facts=[EVIL])
    reader = read(page)
    assert [tag for tag, _ in reader.tags if tag == "script"] == ["script"]
    assert "\x1b" not in page
    assert "\x00" not in page
    harmless = read(render(entries("a cat"), title="a cat", facts=["a cat"]))
    assert [tag for tag, _ in reader.tags] == [tag for tag, _ in harmless.tags], "no tag more than of harmless words"
    assert [sorted(attributes) for _, attributes in reader.tags] == [sorted(a) for _, a in harmless.tags]


def test_the_page_fetches_nothing_and_runs_its_own_script_alone():
    page = render(entries(), title="t", facts=[])
    policy = next(a["content"] for tag, a in read(page).tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]{44}'", policy)
    assert "unsafe-inline" not in policy.split("script-src")[1]
    assert all(a["src"].startswith("data:image/jpeg;base64,") for tag, a in read(page).tags if tag == "img")


def test_tokens_say_what_they_are_and_whether_they_are_learned():
    spans = [a for tag, a in read(render(entries()[:1], title="t", facts=[])).tags if tag == "span"]
    shown = [(a.get("class"), a.get("title")) for a in spans if a.get("title")]
    assert shown == [("", "3 tokens"), ("picture-token", "144 tokens"), ("learned", "2 tokens, weight 0.5")]
