"""Examples of a dataset as a page.   pytest tests/multimodal/gallery/test_writing.py"""

import json
import re

import numpy as np
import pytest
from PIL import Image

from hpcdata.multimodal import DatasetBase, MolmoPreprocessorConfig, register
from hpcdata.multimodal.datasets import registry
from hpcdata.multimodal.gallery.showing import Look, show
from hpcdata.multimodal.gallery.writing import write_page
from hpcdata.multimodal.image_files import PictureFile
from hpcdata.samples import BadSample, Reason
from hpcdata.visualize import main
from tests.browser import open_page
from tests.multimodal.gallery.test_page import read


class Shapes(DatasetBase):
    """A conversation, a tree with points, a text, and two examples that are none."""

    def load(self):
        picture = np.zeros((40, 60, 3), np.uint8)
        return [
            {"image": picture, "messages": ["What?", "A box.", "Sure?", "Yes."], "metadata": {"id": "first"}},
            {
                "image": picture,
                "message_list": [
                    {"style": "vqa2", "question": "One?", "answer": "Uno."},
                    {"style": "pointing", "label": "corner", "points": np.array([[30.0, 20.0]])},
                ],
            },
            {"messages": ["Only text <script>?", "Yes </script>."]},
            {"image": b"no picture", "messages": ["What?", "Nothing."]},
            {"bad": True},
            {"image": PictureFile(b"<html>no picture"), "messages": ["What?", "Nothing."]},
        ]

    def get(self, item, rng):
        if "bad" in self.data[item]:
            raise BadSample(Reason.BAD_EXAMPLE, "no such field")
        return super().get(item, rng)


@pytest.fixture(scope="module")
def preprocessor():
    config = MolmoPreprocessorConfig(tokenizer="embedded", base_image_input_size=[56, 56], crop_mode="resize")
    return config.build_preprocessor(is_training=True)


def of(preprocessor, item, **look):
    return show(Shapes(), item, preprocessor, 3, Look(**look))


def learned(part):
    return "".join(run.text for run in part.runs if run.weight > 0)


def test_a_conversation_shows_which_words_are_learned(preprocessor):
    entry, figures = of(preprocessor, 0)
    (part,) = entry.parts
    assert entry.title == "example 0: first"
    assert learned(part) == " A box.</s> Yes.</s>"
    whole = "".join(run.text for run in part.runs)
    assert re.fullmatch(r"<s>\[4 patches in \d+ tokens\] ?User: What\? Assistant: A box.</s> User:.*Yes.</s>", whole)
    assert figures.num_crops == 1
    assert figures.num_tokens == sum(run.count for run in part.runs) - 1, "the last label is no input"


def test_branches_are_shown_by_themselves_with_the_ends_that_they_learn(preprocessor):
    entry, _ = of(preprocessor, 1)
    assert entry.parts[0].title == "What all branches see"
    assert learned(entry.parts[0]) == ""
    answers = {learned(part) for part in entry.parts[1:]}
    assert " Uno.</s>" in answers
    assert all(answer.endswith("</s>") for answer in answers)
    (mark,) = entry.pictures[0].marks
    assert (mark.x, mark.y) == (50, 50)


def test_pictures_are_shown_by_whichever_field_the_preprocessor_takes(preprocessor):
    """`image` and `images`, one or several, are found by the formatter's own rule."""

    class Plural(Shapes):
        def load(self):
            picture = np.zeros((40, 60, 3), np.uint8)
            return [{"images": [picture, picture], "messages": ["What?", "Two boxes."]}]

    entry, figures = show(Plural(), 0, preprocessor, 3, Look())
    assert (len(entry.pictures), figures.num_crops) == (2, 2)


def test_crops_and_patches_are_shown_where_they_are_asked_for(preprocessor):
    assert not of(preprocessor, 0)[0].crops
    entry, _ = of(preprocessor, 0, crops=True, patches=True)
    assert len(entry.crops) == 1
    assert "<im_patch>" in "".join(run.text for run in entry.parts[0].runs)


@pytest.mark.parametrize(("item", "reason"), [(3, "unreadable_image"), (4, "bad_example"), (5, "unreadable_image")])
def test_what_is_rejected_is_shown_with_its_reason(preprocessor, item, reason):
    entry, figures = of(preprocessor, item)
    assert entry.reject.startswith(f"{reason}: ")
    assert figures is None


def test_the_page_has_all_of_them_and_counts_rejects(preprocessor, tmp_path):
    written = write_page(Shapes(), preprocessor, tmp_path / "new" / "folder", name="shapes")
    assert (written.num_shown, dict(written.rejects)) == (6, {"unreadable_image": 2, "bad_example": 1})
    text = read(written.path.read_text()).text
    assert "6 of 6 examples" in text
    assert "rejected: 2 unreadable_image, 1 bad_example" in text


@pytest.mark.slow
def test_it_opens_in_a_browser_without_a_network_and_its_search_runs(preprocessor, tmp_path):
    written = write_page(Shapes(), preprocessor, tmp_path, name="shapes")
    page = open_page(written.path)
    assert '<span id="found" role="status">6 of 6 examples</span>' in page.dom
    assert not {url for url in page.requests if not url.startswith(("file:", "data:"))}


def test_the_command_takes_the_words_of_the_document(tmp_path, capsys):
    register("shapes_to_look_at", Shapes)
    try:
        words = ["shapes_to_look_at", str(tmp_path / "viz"), "--split=train", "--num_examples=2", "--max_crops=1"]
        assert main([*words, "--crop_mode=resize", "--show_crops"]) == 0
    finally:
        registry._ENTRIES.pop("shapestolookat")
    assert "2 examples in" in capsys.readouterr().out
    assert (tmp_path / "viz" / "index.html").is_file()


def test_pictures_are_looked_for_where_the_command_says(tmp_path, capsys):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    turns = [{"from": "human", "value": "<image>\nWhich?"}, {"from": "gpt", "value": "this"}]
    lines = tmp_path / "ai2d(cauldron,llava_format)/set.jsonl"
    lines.parent.mkdir()
    lines.write_text(json.dumps({"image": "a.png", "conversations": turns}))
    assert main([str(lines), str(tmp_path / "viz")]) == 1
    assert "rejected 1: missing_image\npictures were looked for in the folder of each file" in capsys.readouterr().out
    assert main([str(lines), str(tmp_path / "viz"), "--image_root", str(tmp_path)]) == 0
    assert "rejected" not in capsys.readouterr().out
    assert main([str(lines), str(tmp_path / "viz"), "--image-root=/none"]) == 2
    assert "--image-root=/none is no folder" in capsys.readouterr().err


def test_an_unknown_name_and_no_examples_are_said_in_one_line(tmp_path, capsys):
    assert main(["no_such_set", str(tmp_path)]) == 2
    assert main(["no_such_set", str(tmp_path), "--crop_mode", "square"]) == 2
    assert main(["no_such_set", str(tmp_path), "--max_frames", "4"]) == 2
    error = capsys.readouterr().err
    assert "no_such_set" in error
    assert "crop_mode" in error
    assert "Traceback" not in error
