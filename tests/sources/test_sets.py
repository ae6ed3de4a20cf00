"""Annotations of COCO, LVIS and VQA v2.   python -m pytest tests/sources/test_sets.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.multimodal import SourceDataset
from hpcdata.runs.planning import prepare
from hpcdata.runs.rejects import rows_of
from hpcdata.samples import ImagePart, Record, Reject, Sample
from hpcdata.sources import InputFile, list_inputs
from hpcdata.sources import prepare as prepare_input
from hpcdata.sources.sets.coordinates import STYLES, boxes_text, points_text
from hpcdata.sources.sets.elements import elements
from hpcdata.sources.sets.settings import settings_line
from hpcdata.sources.streams import open_input
from tests.smallruns import small_config, small_run
from tests.sources.source_files import read_all, write
from tests.work.test_task import png

CATEGORIES = [
    {"id": 1, "name": "person", "supercategory": "person", "keypoints": ["nose", "left_eye"], "skeleton": [[1, 2]]},
    {"id": 90, "name": "toothbrush", "supercategory": "indoor"},
]


def image(number: int, **others: Any) -> dict[str, Any]:
    return {"license": 3, "file_name": f"{number:012d}.jpg", "width": 100, "height": 200, "id": number, **others}


def box(number: int, of: int, category: int = 1, at: Any = (10.0, 20.0, 30.5, 40.0), **others: Any) -> dict[str, Any]:
    polygon = [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]
    values = {"segmentation": polygon, "area": 9.5, "iscrowd": 0, "image_id": of, "bbox": list(at)}
    return {**values, "category_id": category, "id": number, **others}


def coco(path: Path, images: Any, annotations: Any, categories: Any = CATEGORIES) -> Path:
    found = {"info": {"year": 2017, "x": [1, {"a": "]"}]}, "licenses": [{"id": 1, "name": "[{"}], "images": images}
    return write(path, json.dumps({**found, "annotations": annotations, "categories": categories}).encode())


def shown(found: Record) -> str:
    if isinstance(found, Reject):
        return f"{found.reason}: {found.message}"
    assert isinstance(found, Sample)
    return "|".join("I" if isinstance(part, ImagePart) else part.text.strip() for part in found.parts)


def read(path: Path, *tasks: str, coordinates: str = "pixels", source: str = "coco") -> list[str]:
    line = settings_line(tasks or None, coordinates)
    (file,) = list_inputs(str(path), source, made=line)
    return [shown(record) for record in read_all(prepare_input(file, path.parent / "made"))]


def test_captions_are_a_pair_each_without_the_space_around_them(tmp_path: Path) -> None:
    captions = [{"image_id": 9, "id": n, "caption": text} for n, text in enumerate((" A dog. \n", "Two\ndogs.", "\n"))]
    path = coco(tmp_path / "captions_train2017.json", [image(9), image(10)], captions, [])
    assert read(path) == [
        *("A dog.|I", "Two dogs.|I"),
        "nothing_to_learn: image 10 (000000000010.jpg) has nothing for captions",
    ]


ODD = [
    box(1, 9),
    box(2, 9, at=(90, -0.4, 10.3, 5)),
    box(3, 9, 90, at=(5, 5, 0, 5)),
    box(4, 9, 90, iscrowd=1, segmentation={"size": [200, 100], "counts": [1, 2]}),
    box(4, 10, 90, at=(0, 0, 100, 200)),
    box(4, 10, 90, at=(0, 0, 100, 200)),
    box(4, 10, 7),
    box(5, 10, at=(300, 5, 5, 5)),
    box(6, 77),
]
PICTURES = [image(9), image(10), image(11), image(9), image(12, file_name=None), image(13, width=0)]
REJECTS = [
    "bad_record: image 9 comes again in its file",
    "missing_image: image 12 has no file_name and no coco_url",
    "bad_record: image 13 has no width and height, or 0",
    "missing_image: annotation 6 is of image 77, which is not in its file",
]


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        (
            ["boxes"],
            [
                "I|Where is each person?|[10, 20, 40, 60], [90, 0, 100, 5]",
                "I|Where is each toothbrush?|[0, 0, 100, 200]",
                "I|Where is each object of a known category?|There is none.",
            ],
        ),
        (
            ["count"],
            [
                "I|How many objects of the category person are there?|2",
                "I|How many objects of the category toothbrush are there?|1",
                "I|How many objects of known categories are there?|0",
            ],
        ),
        (
            ["presence"],
            [
                "I|Is there any person?|Yes.|Is there any toothbrush?|Yes.",
                "I|Is there any toothbrush?|Yes.",
                "nothing_to_learn: image 11 (000000000011.jpg) has nothing for presence",
            ],
        ),
    ],
)
def test_every_odd_annotation_has_its_end(
    tasks: list[str], expected: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = coco(tmp_path / "instances.json", PICTURES, ODD)
    assert read(path, *tasks) == [*expected, *REJECTS]
    said = (
        "1 annotations of no known category, 1 annotations that come again, 1 boxes outside of their picture, 1 crowds"
    )
    assert f"left out of records: {said}, 1 empty boxes" in caplog.text


STUFF = [*CATEGORIES, {"id": 100, "name": "sky-other", "isthing": 0}]
PANOPTIC = {
    "image_id": 9,
    "file_name": "000000000009.png",
    "segments_info": [
        {"id": 1, "category_id": 1, "area": 9, "bbox": [10, 20, 30, 40], "iscrowd": 0},
        {"id": 2, "category_id": 100, "area": 9, "bbox": [0, 0, 100, 9], "iscrowd": 0},
        {"id": 3, "category_id": 90, "area": 9, "bbox": [0, 0, 10, 9], "iscrowd": 1},
        "odd",
    ],
}


def test_sizes_that_are_none_are_no_matter_of_captions(tmp_path: Path) -> None:
    annotations = [{"image_id": 9, "id": 1, "caption": "A dog."}, box(2, 9)]
    path = coco(tmp_path / "captions.json", [image(9, width="a", height=None)], annotations)
    assert read(path, "captions") == ["A dog.|I"]


def test_the_largest_number_of_a_picture_has_its_annotations(tmp_path: Path) -> None:
    largest = (1 << 63) - 1
    boxes = [box(1, largest, at=(1, 1, 2, 2)), box(2, largest - 1, at=(5, 5, 2, 2))]
    path = coco(tmp_path / "instances.json", [image(largest, file_name="a"), image(largest - 1, file_name="b")], boxes)
    assert read(path, "boxes") == ["I|Where is each person?|[1, 1, 3, 3]", "I|Where is each person?|[5, 5, 7, 7]"]


@pytest.mark.parametrize("style", STYLES)
def test_names_of_keypoints_need_not_be_texts(style: str, tmp_path: Path) -> None:
    annotation = box(1, 9, keypoints=[1, 1, 2], num_keypoints=1)
    path = coco(tmp_path / "p.json", [image(9)], [annotation], [{"id": 1, "name": "dog", "keypoints": [5]}])
    (found,) = read(path, "keypoints", coordinates=style)
    assert "5" in found.rpartition("|")[2]


def test_what_is_nested_deeper_than_json_is_written_is_no_box(tmp_path: Path) -> None:
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    path = coco(tmp_path / "instances.json", [image(9)], [box(1, 9, at=deep), box(2, 9, at=(1, 1, 2, 2))])
    assert read(path, "boxes") == ["I|Where is each person?|[1, 1, 3, 3]"]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("boxes", "I|Where is each person?|[10, 20, 40, 60]"),
        ("count", "I|How many objects of the category person are there?|1"),
        ("presence", "I|Is there any person?|Yes.|Is there any toothbrush?|Yes.|Is there any sky-other?|Yes."),
    ],
)
def test_segments_of_panoptic_annotations_are_objects_and_stuff_is_there_or_not(
    task: str, expected: str, tmp_path: Path
) -> None:
    path = coco(tmp_path / "panoptic_val2017.json", [image(9)], [PANOPTIC], STUFF)
    assert read(path, task) == [expected]
    record = json.loads(next((tmp_path / "made").iterdir()).read_text())
    assert record["objects"] == [
        {"category": "person", "box": [10.0, 20.0, 30.0, 40.0]},
        {"category": "sky-other", "box": [0.0, 0.0, 100.0, 9.0], "isthing": 0},
    ]
    assert read(path) == ["I|Where is each person?|[10, 20, 40, 60]"]


CAPTION = {"image_id": 9, "id": 1, "caption": "A dog."}


@pytest.mark.parametrize(
    ("tasks", "annotations", "message"),
    [
        (
            (),
            [{"image_id": 9, "id": 1, "pose": []}],
            r"of no kind that is read \(fields 'image_id', 'id', 'pose'",
        ),
        ((), None, "has no list of annotations, as the image_info of test sets"),
        (("captions",), [box(1, 9)], r"data\.tasks has captions, which is of captions: .*x\.json has instances"),
        (("boxes",), [CAPTION], r"data\.tasks has boxes, which is of instances or panoptic: .*x\.json has captions"),
        (("keypoints",), [box(1, 9)], r"data\.tasks has keypoints, which is of keypoints"),
        (
            ("masks", "boxes"),
            [PANOPTIC],
            "of instances: .* has panoptic, and its masks stand in PNG",
        ),
    ],
)
def test_what_annotations_cannot_say_is_told_at_once(
    tasks: tuple[str, ...], annotations: Any, message: str, tmp_path: Path
) -> None:
    path = coco(tmp_path / "x.json", [image(9)], annotations)
    if "masks" in tasks:
        pytest.importorskip("pycocotools")
    with pytest.raises(UserError, match=message):
        read(path, *tasks)


def test_a_file_of_pictures_without_a_single_object_is_a_set(tmp_path: Path) -> None:
    path = coco(tmp_path / "x.json", [image(9)], [])
    assert read(path, "captions") == ["nothing_to_learn: image 9 (000000000009.jpg) has nothing for captions"]
    assert read(path) == ["I|Where is each object of a known category?|There is none."]


def test_pixels_stay_in_the_record(tmp_path: Path) -> None:
    path = coco(tmp_path / "instances.json", [image(9)], [box(1, 9), box(2, 9, 90)])
    (file,) = list_inputs(str(path), "coco", made=settings_line(None, "qwen1000"))
    (line,) = Path(prepare_input(file, tmp_path / "made").path).read_text().splitlines()
    record = json.loads(line)
    assert (record["id"], record["width"], record["height"]) == (9, 100, 200)
    assert record["objects"][0] == {"category": "person", "box": [10.0, 20.0, 30.5, 40.0]}
    assert record["conversations"][1]["value"] == "(100,100),(405,300)"


def test_keypoints_are_those_that_are_labelled(tmp_path: Path) -> None:
    seen = box(1, 9, keypoints=[11, 21, 2, 0, 0, 0], num_keypoints=1)
    unseen, odd = (
        box(2, 9, at=(1, 1, 2, 2), keypoints=[0] * 6, num_keypoints=0),
        box(3, 9, at=(2, 2, 2, 2), keypoints=[1]),
    )
    path = coco(tmp_path / "person_keypoints.json", [image(9)], [seen, unseen, odd])
    assert read(path) == ["I|Where are the keypoints of the person at [10, 20, 40, 60]?|nose [11, 21]"]


def test_categories_are_told_by_their_names_as_questions_tell_them(tmp_path: Path) -> None:
    """Two numbers of one name are counted together; of one that has lost an object nobody knows how many there are."""
    dog = {"id": 5, "name": "dog", "keypoints": ["tail", "paw"]}
    cups = [{"id": 6, "name": "wine_glass"}, {"id": 7, "name": "wine glass"}, {"id": 7, "name": "wine glass"}]
    found = [
        *(box(1, 9, 6), box(2, 9, 7, at=(1, 2, 3, 4)), box(3, 9, 1), box(4, 9, 1, at=(5, 5, 0, 5))),
        box(5, 9, 5, at=(7, 8, 2, 2), keypoints=[7, 8, 2, 0, 0, 0]),
    ]
    path = coco(tmp_path / "instances.json", [image(9)], found, [*CATEGORIES, dog, *cups])
    assert read(path, "count") == [
        "I|How many objects of the category wine glass are there?|2|How many objects of the category dog are there?|1"
    ]
    assert read(path, "keypoints") == ["I|Where are the keypoints of the dog at [7, 8, 9, 10]?|tail [7, 8]"]


LVIS = [
    {"id": 1, "name": "aerosol_can", "synset": "a.n.01", "synonyms": ["spray"], "def": "", "frequency": "c"},
    {"id": 2, "name": "cup", "synset": "c.n.01", "frequency": "f"},
    {"id": 3, "name": "owl", "synset": "o.n.01", "frequency": "r"},
]


def lvis_image(number: int, **others: Any) -> dict[str, Any]:
    found = image(number, coco_url=f"http://images.cocodataset.org/val2017/{number:012d}.jpg")
    del found["file_name"]
    return {**found, "neg_category_ids": [3], "not_exhaustive_category_ids": [2], **others}


def test_lvis_is_asked_only_what_its_labels_know(tmp_path: Path) -> None:
    annotations = [
        {name: value for name, value in box(1, of, category).items() if name != "iscrowd"}
        for of, category in ((9, 1), (9, 2))
    ]
    pictures = [lvis_image(9), lvis_image(10, neg_category_ids=[]), image(11, file_name="own.jpg")]
    path = coco(tmp_path / "lvis_v1_val.json", pictures, annotations, LVIS)
    none = "nothing_to_learn: image {} has nothing for count, presence"
    assert read(path, "count", "presence") == [
        "I|How many objects of the category aerosol can are there?|1|How many objects of the category owl are there?|0"
        "|Is there any aerosol can?|Yes.|Is there any cup?|Yes.|Is there any owl?|No.",
        none.format("10 (val2017/000000000010.jpg)"),
        none.format("11 (own.jpg)"),
    ]


@pytest.mark.parametrize(
    ("style", "text", "point"),
    [
        ("llava", "[0.100, 0.100, 0.405, 0.300], [0.000, 0.000, 1.000, 1.000]", "[0.500, 0.250]"),
        ("qwen1000", "(100,100),(405,300), (0,0),(999,999)", "(500,250)"),
        (
            "paligemma",
            "<loc0102><loc0102><loc0307><loc0414> a<b ; <loc0000><loc0000><loc1023><loc1023> a<b",
            "<loc0256><loc0512>",
        ),
        (
            "molmo",
            '<points x1="25.2" y1="20.0" x2="50.0" y2="50.0" alt="a&lt;b">a&lt;b</points>',
            '<point x="50.0" y="25.0" alt="a&lt;b">a&lt;b</point>',
        ),
        ("pixels", "[10, 20, 40, 60], [0, 0, 100, 200]", "[50, 50]"),
    ],
)
def test_styles_of_coordinates(style: str, text: str, point: str) -> None:
    assert boxes_text([(10, 20, 40.5, 60), (0, 0, 100, 200)], (100, 200), style, "a<b") == text
    assert points_text([(50, 50)], (100, 200), style, "a<b") == point


def vqa(folder: Path, questions: Any, answers: Any) -> Path:
    write(folder / "v2_mscoco_train2014_annotations.json", json.dumps({"info": {}, "annotations": answers}).encode())
    named = {"info": {}, "data_subtype": "train2014", "questions": questions}
    return write(folder / "v2_OpenEnded_mscoco_train2014_questions.json", json.dumps(named).encode())


def answered(number: int, *given: str, best: str | None = None) -> dict[str, Any]:
    answers = [{"answer": text, "answer_confidence": "yes", "answer_id": n} for n, text in enumerate(given, 1)]
    return {"question_id": number, "image_id": 9, "answers": answers, "multiple_choice_answer": best}


def test_no_question_gets_the_answers_of_another(tmp_path: Path) -> None:
    """The second question of a number got the answers of the first, and answers of a second list were lost."""
    questions = [{"question_id": n, "image_id": 9, "question": f"Q{k}?"} for k, n in enumerate((1, 1, 2, 3, 4))]
    answers = [answered(1, "a"), answered(2, "b"), answered(2, "c"), answered(3, "d"), answered(3, "d")]
    path = vqa(tmp_path, questions, [*answers, {**answered(4, "e"), "image_id": 8}])
    again, several = "comes again: which of them is answered?", "has several answers, or those of another image"
    assert read(path, source="vqa") == [
        *[f"bad_record: question 1 {again}"] * 2,
        *(f"bad_record: question 2 {several}", "I|Q3?|d", f"bad_record: question 4 {several}"),
    ]


@pytest.mark.parametrize(
    ("strange", "expected"),
    [
        ({"image_id": [9]}, "bad_record: question 1 has several answers, or those of another image"),
        ({"answers": 5, "multiple_choice_answer": "a"}, "I|Q?|a"),
        ({"answers": {"answer": "b"}}, "empty_text: question 1 has empty answers"),
        ({"multiple_choice_answer": ["a"]}, "empty_text: question 1 has empty answers"),
    ],
)
def test_answers_of_other_types_are_told(strange: dict[str, Any], expected: str, tmp_path: Path) -> None:
    questions = [{"question_id": 1, "image_id": 9, "question": "Q?"}]
    assert read(vqa(tmp_path, questions, [{**answered(1), **strange}]), source="vqa") == [expected]


def test_questions_get_the_answer_that_most_give_and_keep_all_of_them(tmp_path: Path) -> None:
    questions = [{"question_id": n, "image_id": 9, "question": f"Q{n}? "} for n in (90001, 3, 4, 5)]
    answers = [answered(3, "no", "yes", "yes"), answered(90001, "a", best="b"), answered(77, "x"), answered(5, "")]
    path = vqa(tmp_path, questions, answers)
    assert read(path, source="vqa") == [
        *("I|Q90001?|b", "I|Q3?|yes"),
        "missing_text: question 4 has no answers",
        "empty_text: question 5 has empty answers",
        "bad_record: answers of question 77, which is not there",
    ]
    lines = [json.loads(line) for line in next((tmp_path / "made").iterdir()).read_text().splitlines()]
    assert lines[1]["answers"] == [["yes", 2], ["no", 1]]
    assert lines[1]["image"] == "COCO_train2014_000000000009.jpg"
    (tmp_path / "v2_mscoco_train2014_annotations.json").unlink()
    with pytest.raises(UserError, match=r"expected its answers in .*v2_mscoco_train2014_annotations\.json"):
        read(path, source="vqa")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[]", "is no JSON object with lists in it"),
        (b'{"annotations": [{"image_id": 1}]}', "has no list of images"),
        (b'{"images": [{"id": 1}], "categories": []}', "has no list of annotations"),
        (
            b'{"categories": [{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}]}',
            "two categories with id 1, 'cat' and 'dog'",
        ),
        (b'{"images": [{"id": "a"}]}', "what begins at byte 12 has id 'a', expected a number"),
        (b'{"images": [{"id": 1}', "is cut short"),
        (b'{"images": [{"id" 1}]}', "what begins at byte 12 is no JSON"),
        (b"", "is cut short"),
    ],
)
def test_what_is_no_set_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read(write(tmp_path / "x.json", data))


def test_auto_says_which_source_reads_annotations(tmp_path: Path) -> None:
    coco(tmp_path / "a.json", [image(9)], [box(1, 9)])
    path = vqa(tmp_path, [{"image_id": 1, "question": "Q", "question_id": 1}], [answered(1, "a")])
    for name, kind in ((tmp_path / "a.json", "coco"), (path, "vqa")):
        with pytest.raises(UserError, match=f"use data.source={kind}"):
            list_inputs(str(name), "auto")
    chat = write(tmp_path / "chat.json", b'{"images": [{"path": "x.png"}], "messages": []}\n')
    assert [file.format for file in list_inputs(str(chat), "auto")] == ["jsonl"]


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["images", 'a"b', "info", "x"]),
        st.lists(
            st.dictionaries(st.text(max_size=3), st.sampled_from([1, "}]", [[{}]], {"a": [1]}, '"\\']), max_size=2)
        )
        | st.sampled_from([1, "[{", {"images": [{"a": 1}]}, [[{"a": 1}]]]),
        max_size=3,
    ),
    st.sampled_from([None, 1]),
)
def test_elements_of_lists_are_found_where_they_stand(values: Any, indent: Any) -> None:
    import tempfile

    data = json.dumps(values, indent=indent).encode()
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        descriptor = open_input(InputFile(path=file.name, label="", format="coco"))
        found = list(elements(descriptor, file.name))
    wanted = [
        (json.dumps(name)[1:-1], item)
        for name, value in values.items()
        if isinstance(value, list)
        for item in value
        if isinstance(item, dict)
    ]
    assert [(item.name, json.loads(item.data)) for item in found] == wanted
    assert all(data[item.place :].startswith(item.data) for item in found)


def test_runs_and_the_raw_path_read_sets(tmp_path: Path) -> None:
    for number in (9, 10):
        write(tmp_path / f"pictures/{number:012d}.jpg", png(number))
    path = coco(tmp_path / "instances.json", [image(9), image(10), image(11)], [box(1, 9), box(2, 10), box(3, 77)])
    made = ("data.source=coco", f"data.image_root={tmp_path / 'pictures'}", "data.n_train_samples=null")
    small_run(tmp_path / "run", *made, "data.tasks=[boxes,count]", "data.coordinates=paligemma", source=path)
    counts = combine(tmp_path / "run", CombineOptions()).counts
    assert (counts.inputs, counts.written) == (4, 2)
    assert sorted(row.reason for row in rows_of(tmp_path / "run")) == ["missing_image", "missing_image"]
    raw = SourceDataset(path, source="coco", image_root=str(tmp_path / "pictures"), coordinates="molmo")
    assert raw[1]["messages"][1]["content"] == '<point x="25.2" y="20.0" alt="person">person</point>'
    for wrong in ("data.tasks=[box]", "data.tasks=[]"):
        with pytest.raises(UserError, match=r"data\.tasks"):
            prepare(small_config(tmp_path / "new", *made, wrong, source=path))
    with pytest.raises(UserError, match=r"data\.coordinates was paligemma, now llava"):
        prepare(small_config(tmp_path / "run", *made, "data.tasks=[boxes,count]", source=path))
