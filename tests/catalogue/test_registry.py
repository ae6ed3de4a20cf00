"""Every name of the documents has an entry, and an entry that is wrong is told by file and field.

pytest tests/catalogue/test_registry.py
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from hpcdata.base.errors import UserError
from hpcdata.catalogue.registry import OWN, Catalogue, key_of, matcher
from tests.base.foreign.test_yaml_text import BOMB
from tests.catalogue.sets import YAML

GUIDE = """
    ChartQa pixmo_cap pixmo_points pixmo_count pixmo_docs pixmo_cap_qa vqa2 text_vqa doc_qa chart_qa ai2d math_vista
    mmmu real_world_qa ok_vqa science_qa tally_qa video_mme mlvu perception_test ego_schema next_qa info_qa scene_text
    vida
"""
"""Of the data preparation guide; the data pipeline's are PixMoCap, VQA2, PixMoPoints."""
MOLMO = """
    pixmo_cap_with_transcripts pixmo_points_counting pixmo_points_high_freq pixmo_points_high_freq_counting
    pixmo_points_train pixmo_count_counting pixmo_count_train pixmo_cap_qa_as_user_qa pixmo_ask_model_anything
    pixmo_pointing_explanations pixmo_clocks pointing_eval dense_caption_eval cosyn_point correction_qa
    correction_qa_multi_only correction_qa_train chart_qa_exp chart_qa_weighted coco_2014_vqa coco_2014_vqa_multi okvqa
    science_qa_img st_qa a_okvqa_da a_okvqa_mc ai2_diagram_v2_mix_transparent tabwmp_da figure_qa plot_qa dv_qa
    clock_bench android_control android_control_ll math_vista_v2 real_world_qa_no_instruction countbench_qa muir_bench
    muir_bench_mc video_mme_short mlvu_mc mlvu_gen long_video_bench long_video_bench_no_subtitle nextqa_mc mvbench
    temp_compass temp_compass_task plm_fgqa_eval plm_fgqa_train pe_video koala intern_vid PixMoCap VQA2 PixMoPoints
"""
KINDS = "chart", "chemical", "circuit", "diagram", "document", "graphic", "math", "music", "nutrition", "table"
PATTERNS = [
    *(f"pixmo_docs_{kind}{end}" for kind in ("charts", "tables", "diagrams", "other") for end in ("", "_flat")),
    *(
        f"cosyn_{kind}{end}"
        for kind in [
            "chart",
            "chemical",
            "circuit",
            "diagram",
            "document",
            "graphic",
            "math",
            "music",
            "nutrition",
            "table",
        ]
        for end in ("", "_exp")
    ),
    *(f"llava_video_178k_{kind}{end}" for kind in ("mc", "oe", "cap") for end in ("", "_flat", "_split")),
]
LLAVA = """
    liuhaotian/LLaVA-Pretrain lmms-lab/LLaVA-ReCap-118K lmms-lab/LLaVA-ReCap-558K lmms-lab/LLaVA-ReCap-CC3M
    lmms-lab/LLaVA-OneVision-Mid-Data lmms-lab/LLaVA-OneVision-Data lmms-lab/LLaVA-NeXT-Data M4-Instruct
    LLaVA-Video-178K BLIP558K ReCap-118K ReCap-558K ReCap-CC3M OneVisionMidData OneVisionData LLaVA-Next
    llava_wild_4v_39k llava_wild_4v_12k MathV360K_TQA MathV360K_VQA-AS MathV360K_VQA-RAD
    Evol-Instruct-GPT4-Turbo-143000
"""
LIQUID = "mlfoundations/dclm-baseline-1.0 JourneyDB cc3m"


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue()


@pytest.mark.parametrize("names", [GUIDE, MOLMO, LLAVA, LIQUID, " ".join(PATTERNS)])
def test_every_name_of_the_documents_has_an_entry(names: str, catalogue: Catalogue) -> None:
    assert not [name for name in names.split() if catalogue.find(name) is None]


def test_no_name_is_there_twice(catalogue: Catalogue) -> None:
    keys = [(key, entry.name) for entry in catalogue.entries for key in {key_of(name) for name in entry.names()}]
    assert len(keys) == len({key for key, _ in keys})
    folders = [entry.folder for entry in catalogue.entries]
    assert len(folders) == len(set(folders))
    assert [path.stem for path in sorted(OWN.glob("*.yaml"))] == [entry.name for entry in catalogue.entries]


def test_groups_of_the_documents(catalogue: Catalogue) -> None:
    assert {"academic", "academic_eval", "pixmo", "video", "llava-stage1"} <= catalogue.groups.keys()
    assert catalogue.choose(["all"]) == catalogue.entries
    stage1 = [entry.name for entry in catalogue.choose(["llava-stage1", "BLIP558K"])]
    assert stage1 == ["llava_pretrain"]


def test_scripts_that_datasets_refuses_are_not_asked_for(catalogue: Catalogue) -> None:
    for name in ("text_vqa", "ok_vqa", "doc_qa"):
        entry = catalogue.find(name)
        assert entry is not None
        assert {tree.revision for tree in entry.hub} == {"refs/convert/parquet"}
        assert "hub" in entry.unchecked


def test_what_is_manual_has_steps_and_what_is_not_there_says_so(catalogue: Catalogue) -> None:
    for entry in catalogue.entries:
        assert (entry.access in ("open", "gated")) == bool(entry.hub or entry.files), entry.name
        assert entry.licence != "unknown" or "licence" in entry.unchecked, entry.name


def test_an_unknown_name_is_told_with_what_comes_near(catalogue: Catalogue) -> None:
    with pytest.raises(UserError, match=r"no data set and no group chartqqa: did you mean .*chart"):
        catalogue.choose(["chartqqa"])


def test_names_of_entries_are_told_from_groups_and_from_what_was_named_itself(catalogue: Catalogue) -> None:
    assert [entry.name for entry in catalogue.choose(["cosyn"])] == ["cosyn"]
    assert catalogue.asked_for(["InfoQa", "info_qa", "pixmo", "all"]) == {"info_qa"}


def own(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder


def test_an_entry_of_ones_own_stands_before_ours(tmp_path: Path) -> None:
    mine = own(tmp_path / "a", YAML.replace("name: pairs", "name: chart_qa"), "mine.yml")
    found = Catalogue([mine])
    entry = found.find("ChartQA")
    assert entry is not None
    assert entry.licence == "GPL-3.0" or entry.hub[0].repo == "lab/pairs"
    assert found.find("chart_qa").hub[0].repo == "lab/pairs"  # type: ignore[union-attr]
    assert [item.name for item in found.entries].count("chart_qa") == 1


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("licence: CC0-1.0", "license: CC0-1.0", "there is no field license: did you mean licence?"),
        ("licence: CC0-1.0\n", "", "the field licence is missing"),
        ("groups: [tests]", "groups: tests", "groups is 'tests', expected a list"),
        ("groups: [tests]", "groups: [1]", "groups is 1, expected str"),
        ("groups: [tests]", "access: secret", "access is 'secret', expected one of open, gated"),
        ("groups: [tests]", "access: manual", "access is manual: it needs steps"),
        ("groups: [tests]", "unchecked: [licens]", "unchecked: there is no field licens"),
        ("folder: torch_datasets/pairs", "folder: ../pairs", "folder: '../pairs' is no path below the folder"),
        ("{repo: lab/pairs}", "{repo: pairs}", "repo is 'pairs', expected OWNER/NAME"),
        (
            "{repo: lab/pairs}",
            "{repo: lab/pairs, revsion: a}",
            "there is no field revsion: did you mean revision?",
        ),
        ("hub: [{repo: lab/pairs}]", "files: [{url: 'ftp://a/b', path: b}]", "'ftp://a/b' is no address"),
        ("hub: [{repo: lab/pairs}]", "files: [{url: 'http://a/b', path: b, sha256: AB}]", "sha256 of b is no 64"),
        ("hub: [{repo: lab/pairs}]", "files: []", "nothing says where it comes from"),
        ("splits: {train: ['data/train-*']}", "splits: {train: data}", "splits.train is 'data', expected a list"),
        (
            "splits: {train: ['data/train-*']}",
            "splits: {}\nrows: {trian: 5}",
            "mine.yaml, line 8: rows: there is no split",
        ),
        (
            "groups: [tests]",
            "groups: [tests]\nreader: {kind: questions, fields: {}, ids: {dev: a.csv}}",
            "line 6: reader: ids: there is no split dev: splits has train",
        ),
        ("groups: [tests]", "groups: [tests]\nfolder: b", "line 6: the field folder stands there twice"),
        ("hub: [{repo: lab/pairs}]", "access: gated", "access is gated, and nothing says where it comes from"),
        ("{repo: lab/pairs}", "{repo: ../pairs}", "repo is '../pairs', expected OWNER/NAME"),
        (
            "hub: [{repo: lab/pairs}]",
            "files: [{url: 'http://[::1', path: a}]",
            "line 6: files: 'http://[::1' is no address",
        ),
        (
            "hub: [{repo: lab/pairs}]",
            "files: [{url: 'http://a/b', path: a}, {url: 'http://a/c', path: a/b}]",
            "files: a is there twice, or is the folder of another one",
        ),
        ("groups: [tests]", "urls: [{tables: [], url: u, folder: i}]", "line 5: urls: tables is empty"),
        ("groups: [tests]", "groups: [chart_qa]", "chart_qa is a group and means the data set chart_qa, too"),
        ("groups: [tests]", "groups: [All]", "All is a group and means all data sets, too"),
        ("name: pairs", "name: pixmo", "pixmo is a group and means the data set pixmo, too"),
        ("name: pairs", "name: all", "the name all means all data sets"),
        ("name: pairs", "name: mine\naliases: [ChartQa]", "an entry that takes its place is called chart_qa"),
        (
            "folder: torch_datasets/pairs",
            "folder: torch_datasets/chartqa",
            "torch_datasets/chartqa is taken, by chart_qa",
        ),
        (YAML, "[", "is no YAML"),
        (YAML, "[" * 200_000, "is no YAML"),
        (YAML, "- " * 200_000, "is no YAML"),
        ("name: pairs", f"name: {'9' * 5000}", "is no YAML: a value in it cannot be read"),
        ("name: pairs", "name: 2001-99-99", "is no YAML: a value in it cannot be read"),
        ("name: pairs", "name: !!bool x", "is no YAML: a value in it cannot be read"),
        ("name: pairs", "name: !!int ''", "is no YAML: a value in it cannot be read"),
        ("name: pairs", "name: !!timestamp x", "is no YAML: a value in it cannot be read"),
        ("name: pairs", "name: &a [*a]", "an alias stands in what it is an alias of"),
        (YAML, BOMB, "more than 1048576 values"),
        (YAML, "7", "expected fields with values, found int"),
        ("name: pairs", "name: '--'", "has no letter and no digit"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_field(old: str, new: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(told)) as error:
        Catalogue([own(tmp_path / "own", YAML.replace(old, new))])
    assert "mine.yaml" in str(error.value)


def test_two_entries_of_ones_own_cannot_have_one_name(tmp_path: Path) -> None:
    folder = own(tmp_path / "own", YAML)
    own(folder, YAML.replace("name: pairs", "name: other\naliases: [PAIRS]"), "other.yaml")
    with pytest.raises(UserError, match="the name PAIRS is taken, by pairs"):
        Catalogue([folder])


@pytest.mark.parametrize(
    ("pattern", "fits", "others"),
    [
        ("data/train-*", ["data/train-1.parquet"], ["data/a/train-1", "data/train-1/b", "xdata/train-1"]),
        ("**/train/*.parquet", ["train/0.parquet", "a/b/train/0.parquet"], ["a/train/b/0.parquet"]),
        ("ai2d(cauldron,llava_format)/*", ["ai2d(cauldron,llava_format)/a"], ["ai2dcauldron/a"]),
        ("GeoQA+(MathV360K)/[a]", ["GeoQA+(MathV360K)/[a]"], ["GeoQA(MathV360K)/a"]),
        ("images/**", ["images/a/b.png"], ["images"]),
        ("a?", ["ab"], ["a", "a/"]),
    ],
)
def test_patterns(pattern: str, fits: list[str], others: list[str]) -> None:
    found = matcher([pattern, "never"])
    assert all(map(found.fullmatch, fits))
    assert not any(map(found.fullmatch, others))


def test_lists_of_patterns_fit_when_one_does() -> None:
    found = matcher(["a/*", "b"])
    assert [bool(found.fullmatch(name)) for name in itertools.chain(["a/x", "b", "bb", "xb", "a/x/b"])] == [
        *(True, True, False, False, False)
    ]
