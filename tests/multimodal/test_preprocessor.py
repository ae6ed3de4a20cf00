"""An example becomes arrays, as long as its measure says.   pytest tests/multimodal/test_preprocessor.py"""

from __future__ import annotations

import dataclasses
import functools
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hpcdata.base.errors import UserError
from hpcdata.media.rules import MOLMO
from hpcdata.multimodal.formatting.formatter import DataFormatter
from hpcdata.multimodal.preprocessor import MolmoPreprocessor, Settings
from hpcdata.multimodal.texts.formats import build_format
from hpcdata.multimodal.texts.layout import SHARED, Weighting
from hpcdata.multimodal.texts.limits import Limits
from hpcdata.multimodal.texts.words import Words, build_words
from hpcdata.multimodal.values import Measures, Room
from hpcdata.samples import BadSample, Reason
from tests.multimodal.byte_tokenizer import SPECIAL, ByteTokenizer
from tests.multimodal.squares import Squares

START, END, PATCH = 257, 258, 259


@functools.cache
def words() -> Words:
    return build_words(ByteTokenizer({**SPECIAL, 270: "<|im_start|>", 271: "<|im_end|>"}))


def preprocessor(
    *,
    chat: str = "role",
    formatter: DataFormatter | None = None,
    limits: Limits | None = None,
    masks: bool = False,
    **changed: Any,
) -> MolmoPreprocessor:
    own = Settings(
        output="images",
        max_images=3,
        limits=limits or Limits(),
        weighting=Weighting(),
        max_answer_len=None,
        last_message_loss_only=False,
        names_pictures=True,
        for_inference=False,
        is_training=True,
        rule=MOLMO,
        max_pixels=10**6,
    )
    return MolmoPreprocessor(
        pictures=Squares(words(), masks=masks, patches=changed.get("output") == "patches"),
        formatter=formatter or DataFormatter(),
        words=words(),
        form=build_format(chat, words()),
        settings=dataclasses.replace(own, **changed),
    )


def rng(seed: int = 0) -> np.random.RandomState:
    return np.random.RandomState(seed)


def picture(height: int = 8, width: int = 8) -> np.ndarray:
    return np.full((height, width, 3), 7, np.uint8)


def learned(made: dict[str, Any]) -> str:
    return words().decode(made["labels"][made["loss_masks"] > 0])


QA = {"image": picture(8, 16), "messages": ["How many?", "Two."], "metadata": {"id": 3}}


def test_an_example_becomes_arrays_as_documented() -> None:
    made = preprocessor(masks=True)(QA, rng())
    text = words().decode(made["input_ids"])
    block = "<im_start>" + "<im_patch>" * 4 + "<im_end>"
    assert text == "<|endoftext|>" + block * 3 + "User: How many? Assistant: Two."
    assert learned(made) == " Two.<|endoftext|>"
    assert made["labels"][:-1].tolist() == made["input_ids"][1:].tolist()
    assert made["images"].shape == (3, 3, 8, 8)
    assert made["image_masks"].shape == (3, 4)
    assert made["image_input_idx"].tolist() == [2, 8, 14]
    assert set(made["input_ids"][made["image_input_idx"]]) == {PATCH}
    assert made["metadata"]["id"] == 3
    assert "pooled_patches_idx" not in made
    assert [made[name].dtype for name in ("input_ids", "labels", "position_ids", "loss_masks")] == [
        np.int64,
        np.int64,
        np.int64,
        np.float32,
    ]


def test_patches_of_all_pictures_count_on_and_what_is_none_stays_none() -> None:
    ours = preprocessor(output="patches")
    made = ours({"image": [picture(), picture(8, 16)], "messages": ["a", "b"]}, rng())
    assert made["pooled_patches_idx"][:, 0].tolist() == list(range(20))
    assert (made["input_ids"][made["image_input_idx"]] == PATCH).all()
    assert made["image_input_idx"].shape == (5, 4)
    assert words().decode(made["input_ids"]).count("Image 2<im_start>") == 1


def test_defect_19_more_pictures_than_allowed_are_a_reject() -> None:
    example = {"image": [picture()] * 4, "messages": ["a", "b"]}
    ours = preprocessor()
    with pytest.raises(BadSample) as caught:
        ours(example, rng())
    assert caught.value.reason is Reason.TOO_MANY_IMAGES
    with pytest.raises(BadSample, match="4 pictures, max_images is 3"):
        ours.measure(example, rng())


def test_one_name_of_a_picture_is_enough_when_it_is_alone() -> None:
    assert "Image" not in words().decode(preprocessor()(QA, rng())["input_ids"])
    two = preprocessor(names_pictures=False)({"image": [picture()] * 2, "messages": ["a", "b"]}, rng())
    assert "Image" not in words().decode(two["input_ids"])


def test_an_answer_that_is_asked_for_is_not_there() -> None:
    ours = preprocessor(for_inference=True, is_training=False)
    made = ours(QA, rng())
    assert words().decode(made["input_ids"]).endswith("User: How many? Assistant:")
    assert made["labels"][-1] == -100
    assert made["labels"][:-1].tolist() == made["input_ids"][1:].tolist()
    assert not made["loss_masks"].any()
    assert ours.room(ours.measure(QA, rng())).num_tokens == len(made["input_ids"])


def test_branches_see_their_pictures_and_themselves() -> None:
    example = {"image": picture(), "message_list": [["a", "b"], ["c", "d"]], "weight": 3.0}
    made = preprocessor(weighting=Weighting(root_subsegments=True))(example, rng())
    segments = made["subsegment_ids"]
    assert segments[0] == SHARED
    assert (made["input_ids"][segments == SHARED] == PATCH).sum() == 8
    np.testing.assert_allclose(made["loss_masks"][made["loss_masks"] > 0], 3 / np.sqrt(2), rtol=1e-6)


def test_answers_may_be_cut_with_what_ends_them() -> None:
    assert (
        learned(preprocessor(max_answer_len=3)({"messages": ["a", "bcdef", "g", "h"]}, rng())) == " bc h<|endoftext|>"
    )


def test_what_is_left_out_is_told() -> None:
    example = {"image": picture(), "messages": ["a", "b", "c", "d"]}
    long = len(preprocessor()(example, rng())["input_ids"])
    cut = preprocessor(limits=Limits(max_sequence_length=long - 1, policies=("drop_last_turns",)))
    made = cut(example, rng())
    assert made["metadata"]["dropped_turns"] == 2
    assert learned(made) == " b<|endoftext|>"
    fewer = preprocessor(limits=Limits(max_sequence_length=long - 1, policies=("fewer_crops",)))(example, rng())
    assert fewer["metadata"]["dropped_crops_from"] == 5
    assert len(fewer["images"]) == 1
    assert (fewer["input_ids"] == PATCH).sum() == 4


def test_defect_23_an_example_that_is_too_long_is_a_counted_reject_and_ends_nothing() -> None:
    ours = preprocessor(limits=Limits(max_sequence_length=20))
    with pytest.raises(BadSample) as caught:
        ours(QA, rng())
    assert caught.value.reason is Reason.TOO_LONG
    with pytest.raises(UserError, match="max_sequence_length is 20"):
        preprocessor(limits=Limits(max_sequence_length=20, policies=("error",)))(QA, rng())


def test_pictures_are_measured_by_their_headers(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(rng().randint(0, 255, (24, 16, 3), np.uint8)).save(path)
    ours = preprocessor()
    example = {"image": str(path), "messages": ["a", "b"]}
    assert ours.measure(example, rng()).sizes == ((24, 16),)
    path.write_bytes(path.read_bytes()[:-40])  # its pixels are not whole
    assert ours.measure(example, rng()).sizes == ((24, 16),)
    with pytest.raises(BadSample) as caught:
        ours(example, rng())
    assert caught.value.reason is Reason.TRUNCATED


def test_points_in_pixels_of_a_file_are_scaled_by_its_header(tmp_path: Path) -> None:
    Image.fromarray(picture(10, 20)).save(tmp_path / "a.png")
    example = {"image": tmp_path / "a.png", "style": "pointing", "label": "cat", "points": [[5, 5]]}
    ours = preprocessor()
    made = ours(example, rng())
    assert learned(made) == ' <point x="25.0" y="50.0" alt="cat">cat</point><|endoftext|>'
    assert ours.room(ours.measure(example, rng())).num_tokens == len(made["input_ids"])


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.sampled_from([*SPECIAL.values(), "a ", "<image", "|>", "é"]), max_size=6).map("".join), st.booleans()
)
def test_text_that_spells_special_tokens_never_changes_pictures(text: str, is_answer: bool) -> None:
    if not is_answer:
        text = text.replace("<|image|>", "").replace("<image>", "")  # a user's markers are places
    messages = ["q", text + "."] if is_answer else [text + ".", "a"]
    made = preprocessor()({"image": picture(), "messages": messages}, rng())
    ids = made["input_ids"]
    assert [(ids == token).sum() for token in (START, PATCH, END)] == [2, 8, 2]
    assert (ids == words().eos).sum() == 1
    assert made["images"].shape[0] == 2
    expected = f" {messages[1]}<|endoftext|>"
    assert learned(made) == expected


def example_of(draw: st.DrawFn) -> dict[str, Any]:
    """Pictures, and conversations or a tree of them; sometimes more pictures than are allowed, or too long texts."""
    sizes = draw(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=4))
    text = st.text(st.sampled_from("ab <|image|>é"), max_size=12).filter(lambda it: "<|image|>" not in it)
    talk = st.lists(text, min_size=1, max_size=6)
    markers = "<image>" * len(sizes) if draw(st.booleans()) else ""
    trees = draw(st.lists(talk, min_size=1, max_size=4))
    trees = [[tree[0] + markers, *tree[1:]] for tree in trees]
    said = {"messages": trees[0]} if len(trees) == 1 else {"message_list": trees}
    return {"image": [picture(*size) for size in sizes], **said}


POLICIES = [("skip",), ("drop_last_turns",), ("fewer_crops",), ("fewer_crops", "drop_last_turns")]


@pytest.mark.parametrize("chat", ["role", "none", "chatml"])
@settings(max_examples=25, deadline=None)
@given(
    talk=st.lists(st.text(st.sampled_from("ab <|im_end|>é"), min_size=1, max_size=9), min_size=2, max_size=6),
    seed=st.integers(0, 9),
)
def test_exactly_what_the_assistant_says_is_learned(chat: str, talk: list[str], seed: int) -> None:
    talk = talk[: len(talk) // 2 * 2]
    ours = preprocessor(chat=chat, formatter=DataFormatter(system_prompt="none"))
    end = "<|im_end|>" if chat == "chatml" else "<|endoftext|>"
    space = "" if chat == "chatml" else " "
    one = ours({"image": picture(), "messages": talk}, rng(seed))
    assert learned(one) == "".join(space + text + end for text in talk[1::2])
    tree = ours({"image": picture(), "message_list": [talk, talk[:2]]}, rng(seed))
    inside = [(tree["loss_masks"] > 0) & (tree["subsegment_ids"] == branch) for branch in range(2)]
    found = sorted(words().decode(tree["labels"][its]) for its in inside)
    assert found == sorted("".join(space + text + end for text in its[1::2]) for its in (talk, talk[:2]))


@pytest.mark.parametrize("chat", ["role", "chatml"])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_the_room_of_a_measure_is_what_an_example_takes(chat: str, data: st.DataObject) -> None:
    example = example_of(data.draw)
    most = data.draw(st.one_of(st.none(), st.integers(10, 200)))
    limits = Limits(
        max_sequence_length=most,
        max_text_tokens=data.draw(st.one_of(st.none(), st.integers(5, 60))),
        policies=data.draw(st.sampled_from(POLICIES)),
        ends_inside=data.draw(st.booleans()),
    )
    ours = preprocessor(
        chat=chat,
        limits=limits,
        weighting=Weighting(ends_inside=limits.ends_inside),
        output=data.draw(st.sampled_from(["images", "patches"])),
        max_answer_len=data.draw(st.one_of(st.none(), st.integers(1, 6))),
        last_message_loss_only=data.draw(st.booleans()),
        for_inference=data.draw(st.booleans()),
    )
    seed = data.draw(st.integers(0, 3))
    refused = None
    try:
        measure = ours.measure(example, rng(seed))
        room = ours.room(measure)
    except BadSample as error:
        refused = error.reason
    if refused is not None:
        with pytest.raises(BadSample) as caught:
            ours(example, rng(seed))
        assert caught.value.reason is refused
        return
    made = ours(example, rng(seed))
    pooled = 4 * len(made["images"]) if "images" in made else 0
    crops = len(made["images"]) if "images" in made else 0
    assert room == Room(num_tokens=len(made["input_ids"]), num_crops=crops, num_pooled=pooled)
    assert most is None or room.num_tokens <= most
    assert len({len(made[name]) for name in ("input_ids", "labels", "loss_masks", "position_ids")}) == 1
    assert (made["input_ids"] == PATCH).sum() == pooled
    stored = ours.rooms(Measures.of([measure], ours.written_by))
    if stored is None:
        assert measure.is_drawn or (len(measure.num_tokens) > 1 and (most or limits.max_text_tokens))
    else:
        assert not measure.is_drawn
        assert [int(column[0]) for column in stored] == [room.num_tokens, room.num_crops, room.num_pooled, 0]


def test_stored_measures_of_other_settings_are_not_used() -> None:
    ours, other = preprocessor(), preprocessor(chat="chatml")
    measures = Measures.of([ours.measure(QA, rng())], ours.written_by)
    assert ours.rooms(measures) is not None
    assert other.rooms(measures) is None
    drawn = {"image": picture(), "style": "pointing", "label": "x", "points": [[1, 1]]}
    assert ours.measure(drawn, rng()).is_drawn
    assert ours.rooms(Measures.of([ours.measure(drawn, rng())], ours.written_by)) is None
    tree = {"image": picture(), "message_list": [["a", "b"], ["c", "dd"]]}
    of_tree = Measures.of([ours.measure(tree, rng())], ours.written_by)
    assert not of_tree.is_drawn.any()
    whole = ours.rooms(of_tree)
    assert whole is not None
    assert whole[0].tolist() == [len(ours(tree, rng())["input_ids"])]
    limits = Limits(max_sequence_length=int(whole[0][0]) - 1)
    assert preprocessor(limits=limits).rooms(of_tree) is None
    in_order = DataFormatter(shuffle_messages=False)
    fixed = preprocessor(limits=limits, formatter=in_order)
    assert fixed.rooms(Measures.of([fixed.measure(tree, rng())], fixed.written_by)) is not None
    short = preprocessor(limits=Limits(max_sequence_length=20))
    assert short.written_by == ours.written_by
    stored = short.rooms(measures)
    assert stored is not None
    assert [int(column[0]) for column in stored] == [0, 0, 0, 1 + list(Reason).index(Reason.TOO_LONG)]


def test_equal_examples_and_randomness_make_equal_arrays_also_of_a_copy_in_another_process() -> None:
    ours = preprocessor()
    copy = pickle.loads(pickle.dumps(ours))
    example = {"image": picture(), "message_list": [["a", "b"], ["c", "d"], ["e", "f"]]}
    for seed in range(3):
        for other in (ours, copy):
            np.testing.assert_equal(other(example, rng(seed)), ours(example, rng(seed)))
    assert copy.settings() == ours.settings()


def test_settings_are_plain_and_change_with_what_comes_out() -> None:
    import orjson

    one = orjson.dumps(preprocessor().settings())
    assert one == orjson.dumps(preprocessor().settings())
    for other in (preprocessor(chat="chatml"), preprocessor(output="patches"), preprocessor(max_images=9)):
        assert orjson.dumps(other.settings()) != one


def test_pictures_as_bytes_and_of_pil_are_the_same() -> None:
    file = io.BytesIO()
    Image.fromarray(picture(9, 17)).save(file, "PNG")
    ours = preprocessor()
    forms = [file.getvalue(), Image.open(file), picture(9, 17), [picture(9, 17)]]
    made = [ours({"image": form, "messages": ["a", "b"]}, rng()) for form in forms]
    for other in made[1:]:
        np.testing.assert_equal(other, made[0])
