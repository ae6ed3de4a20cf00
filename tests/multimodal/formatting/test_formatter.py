"""Examples of every shape become turns.   pytest tests/multimodal/formatting/test_formatter.py

vectors/formatting.json.gz: made by the robot fork of allenai/molmo.
"""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcdata.base.errors import UserError
from hpcdata.multimodal.formatting import fields, points, templates
from hpcdata.multimodal.formatting.formatter import DataFormatter
from hpcdata.multimodal.formatting.options import letter
from hpcdata.multimodal.texts.formats import build_format
from hpcdata.multimodal.texts.words import build_words
from hpcdata.multimodal.values import Branch, Slot
from hpcdata.samples import BadSample, Reason
from tests.multimodal.byte_tokenizer import ByteTokenizer

VECTORS = json.loads(gzip.decompress((Path(__file__).parent.parent / "vectors" / "formatting.json.gz").read_bytes()))
PICTURE = np.zeros((480, 640, 3), np.uint8)
PLAIN = DataFormatter(prompt_templates="none", system_prompt="none")


def rng(seed: int = 0) -> np.random.RandomState:
    return np.random.RandomState(seed)


def turns(branch: Branch) -> list[tuple[str, str]]:
    """(role, text) with pictures as #0, #1 ..."""
    return [
        (turn.role, "".join(f"#{part.picture}" if isinstance(part, Slot) else part for part in turn.parts))
        for turn in branch
    ]


def said(
    example: dict[str, Any], formatter: DataFormatter = PLAIN, seed: int = 0, **options: Any
) -> list[tuple[str, str]]:
    branches, _ = formatter(example, rng(seed), **options)
    (branch,) = branches
    return turns(branch)


def reason(example: dict[str, Any], formatter: DataFormatter = PLAIN) -> tuple[Reason, str]:
    with pytest.raises(BadSample) as caught:
        formatter(example, rng())
    return caught.value.reason, caught.value.message


TALK = [("user", "How many?"), ("assistant", "Two.")]


@pytest.mark.parametrize(
    "messages",
    [
        ["How many?", "Two."],
        [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "Two."}],
        [{"from": "human", "value": "How many?"}, {"from": "gpt", "value": "Two."}],
        [
            {"role": "user", "content": [{"type": "text", "text": "How many?"}]},
            {"role": "assistant", "content": "Two."},
        ],
        ["How many?", "Two.", "And behind the last answer?"],
    ],
)
def test_messages_of_every_shape_are_turns(messages: list[Any]) -> None:
    assert said({"image": PICTURE, "messages": messages}) == TALK


def test_the_documents_methods_give_messages() -> None:
    ours = DataFormatter()
    image = PICTURE
    made = ours.format_qa("How many?", "Two.", image)
    assert made["image"] is image
    assert made["messages"] == [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "Two."}]
    assert ours.format_caption(image, "A cat.")["messages"][0] == {"role": "user", "content": "Describe this image."}
    assert ours.format_qa(question="q", answer="a")["image"] is None
    choice = ours.format_multiple_choice("Which?", ["x", "y"], 1, image)["messages"]
    assert [item["content"] for item in choice] == ["Which?\nA: x\nB: y\n", "B"]
    assert ours.format_instruction("Do it.", "Done.")["messages"][1]["content"] == "Done."
    point = ours.format_pointing("Where is the cat?", [[320, 240]], image, label="Cat")["messages"]
    assert point[1]["content"] == '<point x="50.0" y="50.0" alt="cat">cat</point>'
    assert ours.format_counting(image, 3, label="cats")["messages"][1]["content"] == "3"
    plain = DataFormatter(pointing_format="documents")
    assert plain.format_pointing("Where?", [[320, 240]], image)["messages"][1]["content"] == "Point: <50.0, 50.0>"
    assert plain.format_counting(image, 3)["messages"][1]["content"] == "Count: 3"
    for made in (choice, point):
        assert said({"image": image, "messages": made})


@pytest.mark.parametrize("case", VECTORS["point_examples"], ids=lambda case: f"{case['style']}-{len(case['points'])}")
def test_points_of_examples_are_as_in_molmo(case: dict[str, Any]) -> None:
    image = np.zeros((*case["image"], 3), np.uint8)
    example = {"image": image, "style": case["style"], "points": case["points"], "label": case["label"]}
    assert said(example, DataFormatter(system_prompt="none"))[1] == ("assistant", case["text"])
    scaled = {**example, "image": "somewhere.jpg"}
    branches, _ = DataFormatter(system_prompt="none")(scaled, rng(), sizes=lambda: [tuple(case["image"])])
    assert turns(branches[0])[1][1] == case["text"]


def test_points_are_as_in_molmo() -> None:
    for case in VECTORS["points"]:
        assert points.element(points.in_percent(case["points"], case["scale"]), "cats") == case["text"]


def test_options_are_as_in_molmo() -> None:
    first = VECTORS["options"][0]
    branches, metadata = PLAIN({"image": PICTURE, **first["example"]}, rng())
    assert turns(branches[0]) == [("user", first["prompt"]), ("assistant", first["output"])]
    assert metadata["option_names"] == first["metadata"]["option_names"]


def test_defect_20_no_option_is_left_out() -> None:
    many = VECTORS["options"][1]
    assert many["prompt"].endswith("G: g\n")
    prompt, answer = said({"image": PICTURE, **many["example"]})
    assert prompt[1].startswith(many["prompt"])
    assert prompt[1].endswith("H: h\nI: i\nJ: j\n")
    assert answer[1] == many["output"]
    assert said({"question": "?", "options": [str(n) for n in range(60)], "answer_idx": 59})[1][1] == "BH"
    assert [letter(number) for number in (0, 25, 26, 51, 52, 701, 702)] == ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]
    found = reason({"question": "?", "options": ["a", "b"], "answer_idx": 2})
    assert found == (Reason.BAD_EXAMPLE, "answer_idx is 2, there are 2 options")


def test_options_without_letters_are_answered_by_themselves() -> None:
    example = {"question": "Which?", "unlabelled_options": ["red", "blue"], "answer_idx": 1}
    assert said(example) == [("user", "Which?\nred\nblue\n"), ("assistant", "blue")]


@pytest.mark.parametrize("case", VECTORS["roles"])
def test_roles_are_as_in_molmo(case: dict[str, Any]) -> None:
    formatter = DataFormatter(prompt_templates="none", **case["config"])
    example = {"image": PICTURE, "style": "vqa2", "question": "How many?", "answer": "3"}
    branches, _ = formatter(example, rng())
    words = build_words(ByteTokenizer())
    form = build_format(formatter.message_format, words, always_start_with_space=formatter.always_start_with_space)
    written = form.write(branches[0], opens_answer=False)
    assert [*written[0].lead, written[1].answer[0]] == case["out"]


@pytest.mark.parametrize("case", VECTORS["vqa_answer_choice"])
def test_answers_are_chosen_as_in_molmo(case: dict[str, Any]) -> None:
    example = {"question": "?", "answers": case["answers"]}
    assert said(example, seed=case["seed"])[1][1] == case["chosen"]
    assert said({"question": "?", "answers": "as it is"})[1][1] == "as it is"
    first = DataFormatter(prompt_templates="none", select_answer="first")
    assert said(example, first)[1][1] == min(case["answers"])


def test_answers_by_the_first_field_that_there_is() -> None:
    both = {"question": "?", "answer": "2", "explanation": "One and one.", "text": "unused"}
    assert said(both)[1][1] == "One and one. Answer: 2"
    marked = {
        "image": PICTURE,
        "question": "?",
        "answer": "Here <|POINT|> and <|POINT|>.",
        "answer_annotations": [
            {"points": [[50, 20]], "point_scale": 100, "inline_text": "cat", "alt_text": "a cat"},
            {"points": [[1, 2]], "point_scale": 100, "label": "dog"},
        ],
    }
    assert said(marked)[1][1] == (
        'Here <point x="50.0" y="20.0" alt="a cat">cat</point> and <point x="1.0" y="2.0" alt="dog">dog</point>.'
    )
    assert said({"question": "?", "answer_with_points": "x", "text": "y"})[1][1] == "x"
    assert reason({"question": "?"}) == (
        Reason.NOTHING_TO_LEARN,
        "an annotation has no answer: answers, answer, text, points or options",
    )
    assert said({"question": "?"}, for_inference=True) == [("user", "?")]


def test_defect_21_an_example_and_its_metadata_are_not_changed() -> None:
    array = np.array([[320.0, 240.0], [10.0, 470.0]])
    example = {
        "image": PICTURE,
        "style": "point_count",
        "label": "Cats",
        "points": array,
        "metadata": {"example_id": 7, "points": array},
    }
    before = copy.deepcopy(example)
    _, metadata = DataFormatter()(example, rng())
    np.testing.assert_equal(example, before)
    assert metadata["example_id"] == 7
    np.testing.assert_array_equal(metadata["points"], [[320, 240], [10, 470]])
    metadata["points"][:] = 0
    np.testing.assert_equal(example, before)
    del example["metadata"]
    _, metadata = DataFormatter()(example, rng())
    metadata["points"][:] = 0
    np.testing.assert_equal(example, {name: value for name, value in before.items() if name != "metadata"})


def test_styles_are_said_before_questions() -> None:
    example = {"question": "?", "answer": "x" * 150, "style": "eval_short_answer"}
    assert said(example, DataFormatter(system_prompt="style"))[0][1] == "vqa2: ?"
    length = DataFormatter(system_prompt="style_and_length")
    hints = [said(example, length, seed)[0][1] for seed in range(200)]
    assert 8 <= hints.count("vqa2 : ?") <= 35
    numbers = [int(hint.split()[1][:-1]) for hint in hints if hint != "vqa2 : ?"]
    assert 9 < np.mean(numbers) < 10.5
    assert said(example, length, for_inference=True) == [("user", "vqa2 65: ?")]
    second = DataFormatter(system_prompt="style_and_length_v2")
    assert "vqa2: ?" in [said(example, second, seed)[0][1] for seed in range(50)]
    demo = {"question": "?", "answer": "x", "style": "user_qa"}
    prompts = [said(demo, DataFormatter(), seed)[0][1] for seed in range(300)]
    assert 12 <= prompts.count("user_qa: ?") <= 50
    assert prompts.count("?") == 300 - prompts.count("user_qa: ?")
    assert said({**demo, "style": "android_control"}, DataFormatter())[0][1] == "?"
    assert said({**demo, "style": "a_okvqa_mc"}, DataFormatter())[0][1] == "a_okvqa_mc: ?"
    assert said({"messages": ["a", "b"], "style": "vqa2"}, DataFormatter())[0] == ("user", "vqa2: a")


def test_templates_of_a_style_share_their_fields() -> None:
    for style, its in templates.OURS.items():
        assert len({templates.fields_of(template) for template in its}) == 1, style
        assert len(set(its)) == len(its), style


def test_prompts_are_drawn_from_the_templates_of_a_style() -> None:
    ours = DataFormatter(system_prompt="none")
    asked = {said({"image": PICTURE, "style": "long_caption", "text": "t"}, ours, seed)[0][1] for seed in range(200)}
    assert asked == set(templates.OURS["long_caption"])
    example = {"image": PICTURE, "style": "pointing", "label": "{cat}", "points": [[1, 1]]}
    asked = {said(example, ours, seed)[0][1] for seed in range(200)}
    assert asked == {template.replace("{label}", "{cat}") for template in templates.OURS["pointing"]}
    first = DataFormatter(system_prompt="none", debug=True)
    assert {said(example, first, seed)[0][1] for seed in range(9)} == {"Point at the {cat}."}
    assert said({"style": "chart_qa_exp", "question": "q", "answer": "a"}, ours)[0][1].startswith("q Explain")
    bare = {"style": "vqa2", "question": "q", "answer": "a"}
    assert said(bare, ours)[0][1] == "q"
    second = DataFormatter(system_prompt="none", prompt_templates="uber_model_v2")
    assert len({said(bare, second, seed)[0][1] for seed in range(100)}) == len(templates.OURS["short_answer"])
    assert said({"text": "A cat."}, ours)[0][1] in templates.OURS["long_caption"]


def test_templates_of_a_user_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text('pointing: ["Zeig auf {label}."]\nmine: ["{question} ({language})"]\n')
    ours = DataFormatter(system_prompt="none", templates=path)
    assert said({"image": PICTURE, "style": "pointing", "label": "x", "points": [[1, 1]]}, ours)[0][1] == "Zeig auf x."
    mine = {"style": "mine", "question": "Was?", "language": "{question}", "answer": "a"}
    branches, metadata = ours(mine, rng())
    assert turns(branches[0])[0][1] == "Was? ({question})"
    assert "unknown_fields" not in metadata
    assert reason({"style": "mine", "question": "Was?", "answer": "a"}, ours)[1] == (
        "a prompt of style mine needs the field language"
    )
    assert ours.settings()["templates"] != DataFormatter().settings()["templates"]
    assert ours.settings() == {"system_prompt": "none", "templates": ours.settings()["templates"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('a: ["{x}", "{y}"]', r"all templates of a must name the same fields: '\{y\}' has \{y\}, the first one \{x\}"),
        ("a: []", "a needs a list of texts"),
        ("a: [1]", "a needs a list of texts"),
        ("- a", "expected a mapping of styles"),
        ("a: [", "not readable YAML"),
        ("1: [b]", "1 is no name of a style"),
    ],
)
def test_files_of_templates_that_are_wrong_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        DataFormatter(templates=str(tmp_path / "mine.yaml"))


TREE = {
    "image": PICTURE,
    "message_list": [
        {"question": "a?", "answer": "a", "style": "vqa2"},
        ["b?", "b"],
        [{"role": "user", "content": "c?"}, {"role": "assistant", "content": "c"}],
        {"question": "d?", "answer": "d", "weight": 0.5},
    ],
    "weight": 2.0,
}


def test_several_annotations_are_branches_in_a_drawn_order() -> None:
    orders = set()
    for seed in range(30):
        branches, _ = PLAIN(TREE, rng(seed))
        orders.add("".join(turns(branch)[1][1] for branch in branches))
        weights = {turns(branch)[1][1]: branch[1].weight for branch in branches}
        assert weights == {"a": 2.0, "b": 2.0, "c": 2.0, "d": 1.0}
    assert len(orders) > 10
    kept = [turns(branch)[1][1] for branch in PLAIN(TREE, rng(), is_training=False)[0]]
    assert kept == ["a", "b", "c", "d"]
    assert kept == [turns(branch)[1][1] for branch in DataFormatter(shuffle_messages=False)(TREE, rng())[0]]
    one = DataFormatter(p_one_message=1.0, prompt_templates="none", system_prompt="none")
    assert [turns(branch) for branch in one(TREE, rng())[0]] == [[("user", "a?"), ("assistant", "a")]]
    numbered = DataFormatter(format_message_list="numbered_qa", system_prompt="none", shuffle_messages=False)
    assert turns(numbered(TREE, rng())[0][1]) == [("user", "Q2: b?"), ("assistant", "A2: b")]


def test_equal_randomness_makes_equal_turns() -> None:
    for seed in range(5):
        assert DataFormatter()(TREE, rng(seed)) == DataFormatter()(TREE, rng(seed))


@pytest.mark.parametrize(
    ("num_pictures", "messages", "expected"),
    [
        (1, ["Look <image> here", "a"], "Look #0 here"),
        (2, ["<|image|> or <image>?", "a"], "#0 or #1?"),
        (1, ["No marker", "an <image> in an answer"], "No marker"),
        (0, ["No picture", "<|image|>"], "No picture"),
        (
            1,
            [{"role": "user", "content": [{"type": "image"}, "is <image>?"]}, {"role": "gpt", "content": "a"}],
            "#0is <image>?",
        ),
    ],
)
def test_markers_are_places_in_what_users_say(num_pictures: int, messages: list[Any], expected: str) -> None:
    found = said({"image": [PICTURE] * num_pictures, "messages": messages})
    assert found[0][1] == expected


@pytest.mark.parametrize(
    ("num_pictures", "text", "expected"),
    [
        (1, "<image><image>", Reason.MARKER_WITHOUT_IMAGE),
        (0, "What does <image> do?", Reason.MARKER_WITHOUT_IMAGE),
        (2, "<image>", Reason.IMAGE_WITHOUT_MARKER),
    ],
)
def test_defect_07_markers_that_do_not_match_pictures_are_rejects(
    num_pictures: int, text: str, expected: Reason
) -> None:
    example = {"images": [PICTURE] * num_pictures, "messages": [text, "a"]}
    assert reason(example)[0] is expected


def test_defect_07_a_marker_in_an_answer_is_text_and_moves_no_picture() -> None:
    found = said({"image": PICTURE, "messages": ["Look <image>", "an <image>", "and", "<|image|>"]})
    assert found == [("user", "Look #0"), ("assistant", "an <image>"), ("user", "and"), ("assistant", "<|image|>")]


def test_markers_without_any_picture_may_be_text() -> None:
    ours = DataFormatter(lone_markers="text", system_prompt="none")
    assert said({"messages": ["What does <image> do?", "a"]}, ours)[0][1] == "What does <image> do?"


def test_pictures_may_stand_behind_the_first_message() -> None:
    ours = DataFormatter(image_last=True, system_prompt="none")
    assert said({"image": [PICTURE] * 2, "messages": ["a", "b"]}, ours)[0][1] == "a#0#1"
    assert said({"image": PICTURE, "messages": ["<image>a", "b"]}, ours)[0][1] == "#0a"


def test_unknown_fields_are_named_and_misspelled_ones_are_rejects() -> None:
    _, metadata = PLAIN({"messages": ["a", "b"], "url": "x", "question_id": 3}, rng())
    assert metadata["unknown_fields"] == ["url", "question_id"]
    found = reason({"mesages": ["a", "b"], "image": PICTURE})
    assert found[0] is Reason.BAD_EXAMPLE
    assert "did you mean 'messages'?" in found[1]
    assert reason({"imge": PICTURE, "messages": ["a", "b"]})[0] is Reason.BAD_EXAMPLE


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"messages": []}, "messages are empty"),
        ({"messages": "text"}, "messages are a list"),
        ({"messages": ["a", {"role": "user", "content": "b"}]}, "message 1 is neither"),
        ({"messages": [{"role": "bot", "content": "b"}]}, "has the role 'bot'"),
        ({"messages": [{"role": "user", "content": None}]}, "no content that is text"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "a part of type 'video'"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}, "put it into the field image"),
        ({"image": PICTURE}, "nothing says what is asked"),
        ({"image": PICTURE, "images": [PICTURE], "messages": ["a", "b"]}, "has image and images"),
        ({"image": [PICTURE, None], "messages": ["a", "b"]}, "holds None"),
        ({"messages": ["a", "b"], "weight": -1}, "weight is -1"),
        ({"messages": ["a", "b"], "weight": 10**400}, "weight is 1000"),
        ({"messages": ["a", "b"], "weight": 1e39}, "weight is 1e"),
        ({"messages": ["a", "b"], "weight": 1e-39}, "expected 0, or a number from 1e-09 to"),
        ({"text": 10**400}, "text is of type int"),
        ({"question": "q", "answers": [None, "a"]}, "answers hold one of type NoneType"),
        ({"question": "q", "answers": [["a"]]}, "answers hold one of type list"),
        ({"question": "q", "options": ["a", None], "answer_idx": 0}, "options hold one of type NoneType"),
        ({"style": "pointing", "label": "x", "points": [[10**400, 2]], "image": PICTURE}, "pairs of numbers"),
        ({"message_list": []}, "message_list is not a list"),
        ({"style": "pointing", "label": "x", "points": [[1, float("nan")]], "image": PICTURE}, "finite"),
        ({"style": "pointing", "label": "x", "points": [[1, 2, 3]], "image": PICTURE}, "pairs"),
        ({"style": "pointing", "label": "x", "points": [[1, 2]]}, "points without point_scale"),
        ({"style": "pointing", "label": "x", "points": {1, 2}}, "points is of type set"),
        ({"style": "pointing", "label": "x", "points": [[1, 2]], "point_scale": 0}, "point_scale is 0"),
        ({"style": 3, "question": "q", "answer": "a"}, "style is 3"),
        ({"question": b"q", "answer": "a"}, "question is of type bytes"),
        ({"question": float("nan"), "answer": "a"}, "question is of type float"),
        ({"question": "q", "answers": 3}, "answers is of type int"),
        ({"question": "q", "options": "ab"}, "options are not a list"),
        ({"question": "q", "answer": "a", "metadata": "m"}, "metadata are of type str"),
        ({"label": "x", "count": 1.5, "style": "only_count"}, "count is 1.5"),
        ({"messages": ["a", "b"], "weight": float("nan")}, "weight is nan"),
        ({"style": "cosyn_point", "question": "x", "points": [], "image": PICTURE}, "has no points"),
        ({"style": "point_count", "label": "x", "points": [[1, 2]], "count": 3, "image": PICTURE}, "count is 3"),
    ],
)
def test_examples_that_make_no_sense_are_rejects_that_say_why(example: dict[str, Any], message: str) -> None:
    found = reason(example)
    assert found[0] is Reason.BAD_EXAMPLE
    assert message in found[1]


def test_pictures_of_hugging_face_are_their_bytes_or_paths() -> None:
    example = {"image": [{"bytes": b"x", "path": "a.png"}, {"bytes": None, "path": "b.png"}]}
    assert fields.pictures_of(example) == [b"x", "b.png"]
    assert len(fields.pictures_of({"image": np.stack([PICTURE, PICTURE])})) == 2
    assert len(fields.pictures_of({"image": PICTURE})) == 1


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        ({"messages": ["Where?", '<point x="1.0" y="2.0" alt="a">a</point>']}, True),
        ({"message_list": [{"style": "pointing", "label": "x"}, ["a", "b"]]}, True),
        ({"question": "q", "answer": "a", "points": [[1, 2]]}, True),
        ({"messages": ["Where?", "Point: <1.0, 2.0>"]}, True),
        ({"messages": ["What is the point?", "None."], "style": "user_qa"}, False),
    ],
)
def test_examples_that_say_places_are_known(example: dict[str, Any], expected: bool) -> None:
    assert points.says_places(example) is expected


def test_a_conversation_without_an_answer_teaches_nothing() -> None:
    assert reason({"messages": ["only a question"]})[0] is Reason.NOTHING_TO_LEARN
    assert said({"messages": ["a", "b", "c", "d"]}, for_inference=True)[-1] == ("user", "c")


def test_settings_that_are_unknown_are_refused() -> None:
    for name, value in (
        ("prompt_templates", "x"),
        ("system_prompt", "x"),
        ("select_answer", "x"),
        ("lone_markers", "x"),
    ):
        with pytest.raises(UserError, match=f"{name}=x: expected one of"):
            DataFormatter(**{name: value})


def test_pictures_in_fields_with_numbers_are_pictures_of_the_example() -> None:
    example = {"image_2": "b.png", "image": "a.png", "image_10": ["c.png", "d.png"], "image_3": None, "image_512": "x"}
    assert fields.pictures_of(example) == ["a.png", "b.png", "c.png", "d.png"]
    assert fields.check_fields(example) == ["image_3", "image_512"]
