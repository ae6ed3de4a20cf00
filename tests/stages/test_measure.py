"""The stage `measure`: sizes and lengths, and nothing decoded.   pytest tests/stages/test_measure.py"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ImageFile

from hpcdata import TokenDataset, embedded
from hpcdata.base.errors import UserError
from hpcdata.config.compose import compose
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.dataset.verifying import verify
from hpcdata.multimodal import MeasuredDataset, MolmoPreprocessorConfig, SourceDataset, get_dataset
from hpcdata.multimodal.image_files import size_of
from hpcdata.multimodal.values import Measure
from hpcdata.runs.planning import prepare
from hpcdata.runs.rejects import rows_of
from hpcdata.samples import BadSample
from hpcdata.work.prove import prove
from hpcdata.work.retry import retry
from hpcdata.work.task import TaskOutcome, run_task
from tests.faulty_runs import CASES, READY
from tests.media.pictures import encoded, exif, noisy
from tests.poisoned import install
from tests.smallruns import StopAfter, small_config, small_run
from tests.sources.source_files import json_lines, write
from tests.trees import sha256_tree
from tests.work.test_poison import pictures, run_until_done
from tests.work.test_task import png

MEASURE = ("stage=measure", "image.tokenizer=null", "data.n_train_samples=null")
HEADERS = ("hpcdata.media.headers", "upright_size")
CONFIG = MolmoPreprocessorConfig(tokenizer="embedded")


def measured(folder: Path, *overrides: str, source: str | Path | None = None) -> MeasuredDataset:
    small_run(folder, *MEASURE, *overrides, source=source)
    combine(folder, CombineOptions())
    assert [report.problems for report in verify(folder)] == [[], []]
    return MeasuredDataset(folder)


def source_of(dataset: MeasuredDataset) -> Path:
    return Path(dataset.path).parent / "in/x.jsonl"


def reasons(folder: Path) -> dict[str, str]:
    return {row.key: row.reason for row in rows_of(folder)}


def talk(*turns: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(turns)]


def talks(folder: Path) -> Path:
    """Conversations with one, two and no pictures; a picture on its side; what is not there, no picture, or no JSON."""
    write(folder / "a.png", png())
    write(folder / "side.jpg", encoded(noisy(30, 20), "JPEG", exif=exif(6)))
    write(folder / "bad.png", b"no picture")
    rows: list[Any] = [
        {"image": "a.png", "conversations": talk("<image>\nWhat is it?", "A picture.", "Is it?", "It is.")},
        {"image": ["side.jpg", "a.png"], "conversations": talk("First <image>, then <image>?", "Two <of> them.")},
        {"conversations": talk("No picture here.", "None at all.")},
        {"image": "gone.png", "conversations": talk("<image>", "Gone.")},
        b"no JSON\n",
        {"image": "bad.png", "conversations": talk("<image>", "Bad.")},
        {"image": "a.png", "conversations": talk("<image> and no answer")},
        {"image": "side.jpg", "conversations": talk("Where?", "There.")},
    ]
    return write(folder / "x.jsonl", json_lines(rows))


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return talks(tmp_path / "in")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> MeasuredDataset:
    """Of these conversations, in shards of three. Not to be changed."""
    folder = tmp_path_factory.mktemp("measured")
    return measured(folder / "run", "data.shard_size=3", source=talks(folder / "in"))


def test_sizes_and_lengths_are_those_that_the_preprocessor_finds(done: MeasuredDataset) -> None:
    dataset, raw, preprocessor = done, SourceDataset(source_of(done)), CONFIG.build_preprocessor()
    rows = [0, 1, 2, 7]
    assert len(dataset) == 4
    found = dataset.measures(np.arange(4))
    expected = [preprocessor.measure(raw[row], np.random.RandomState(0)) for row in rows]
    assert [found[number] for number in range(4)] == expected
    assert found[1].sizes == ((30, 20), size_of(str(source_of(done).parent / "a.png")))
    assert found.written_by == preprocessor.written_by
    assert not found.is_drawn.any()
    rooms = preprocessor.rooms(found)
    assert rooms is not None
    made = [preprocessor(raw[row], np.random.RandomState(0)) for row in rows]
    assert rooms[0].tolist() == [len(item["input_ids"]) for item in made]
    assert rooms[1].tolist() == [len(item.get("images", ())) for item in made]


def test_what_cannot_be_opened_or_read_is_a_reject_by_its_reason_and_the_account_closes(done: MeasuredDataset) -> None:
    assert reasons(Path(done.path)) == {
        "x.jsonl#3": "missing_image",
        "x.jsonl#4": "bad_json",
        "x.jsonl#5": "unreadable_image",
        "x.jsonl#6": "nothing_to_learn",
    }
    counts = done.manifest.counts
    assert (counts.inputs, counts.written, counts.rejected.total()) == (8, 4, 4)
    assert (counts.images, counts.is_balanced()) == (4, True)


def test_nothing_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("decoded"))
    small_run(tmp_path / "run", *MEASURE, "data.n_train_samples=9")
    assert reasons(tmp_path / "run") == {}


@pytest.mark.parametrize(
    "name", [name if name in ("tar", "pairs") else pytest.param(name, marks=pytest.mark.slow) for name in READY]
)
def test_records_of_every_source_are_read_at_random_as_they_are_one_after_the_other(name: str, tmp_path: Path) -> None:
    make, named = CASES[name]
    make(tmp_path / "inputs")
    dataset = measured(tmp_path / "run", "data.shard_size=5", source=tmp_path / "inputs" / named)
    raw = SourceDataset(tmp_path / "inputs" / named)
    assert len(dataset) == len(raw) == 12
    for place in random.Random(3).sample(range(12), 12):
        one, other = dataset[place], raw[place]
        assert (one["metadata"], one.get("text")) == (other["metadata"], other.get("text"))
        assert ("image" in one) == ("image" in other)
        if "image" in one:
            assert one["image"].read() == other["image"].read()
            assert dataset.measures([place])[0].sizes == (other["image"].size(),)


def test_a_measured_picture_knows_its_size(done: MeasuredDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    example = done[1]
    monkeypatch.setattr("hpcdata.media.headers.upright_size", lambda *_, **__: pytest.fail("a header was read"))
    preprocessor = CONFIG.build_preprocessor()
    assert preprocessor.measure(example) == done.measures([1])[0]


def test_captions_are_asked_for_by_chance_and_that_is_noted(tmp_path: Path) -> None:
    dataset = measured(tmp_path / "run", "data.n_train_samples=9")
    measures = dataset.measures([3, 8, 0])
    assert measures.is_drawn.all()
    assert CONFIG.build_preprocessor().rooms(measures) is None
    assert [measures[row].sizes for row in range(3)] == [(dataset[row]["image"].size(),) for row in (3, 8, 0)]


@pytest.mark.slow
def test_the_content_does_not_depend_on_where_it_is_cut(tmp_path: Path, lines: Path) -> None:
    digests = {
        measured(tmp_path / str(size), f"data.shard_size={size}", source=lines).manifest.content_digest
        for size in (2, 3, 100)
    }
    assert len(digests) == 1


def test_settings_of_texts_and_the_tokenizer_are_fixed_and_others_are_nothing_to_it(
    tmp_path: Path, lines: Path
) -> None:
    first = small_run(tmp_path / "run", *MEASURE, source=lines)
    same = (*MEASURE, "data.resolution=64", "data.block_size=3", "image.rule=liquid", "loader.batch_size=2")
    assert prepare(small_config(tmp_path / "run", *same, source=lines)).fingerprint == first.fingerprint
    for other in ("{message_format:none}", "{system_prompt:none,image_rule:white}"):
        with pytest.raises(UserError, match=r"measure\.preprocessor was \{\}, now"):
            prepare(small_config(tmp_path / "run", *MEASURE, f"measure.preprocessor={other}", source=lines))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("text.tokenizer=null",), "text.tokenizer is required: measure counts its ids"),
        (("measure.preprocessor={mesage_format:role}",), "has no setting mesage_format: did you mean message_format"),
        (("measure.preprocessor={message_format:talk}",), "message_format=talk"),
        (("measure.preprocessor={tokenizer:x}",), "has tokenizer: set text.tokenizer"),
    ],
)
def test_bad_settings_are_refused_when_it_is_planned(tmp_path: Path, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepare(small_config(tmp_path / "run", *MEASURE, *overrides))


def test_the_format_of_the_settings_counts(tmp_path: Path, done: MeasuredDataset) -> None:
    spaced = measured(tmp_path / "run", "measure.preprocessor={message_format:none}", source=source_of(done))
    preprocessor = MolmoPreprocessorConfig(tokenizer="embedded", message_format="none").build_preprocessor()
    assert preprocessor.rooms(done.measures([0])) is None
    assert preprocessor.rooms(spaced.measures([0])) is not None
    assert done.measures([0])[0].num_tokens != spaced.measures([0])[0].num_tokens


def test_a_picture_that_comes_back_is_measured_by_a_retry_and_what_is_stored_can_be_proved(
    tmp_path: Path, lines: Path
) -> None:
    small_run(tmp_path / "run", *MEASURE, source=lines)
    write(lines.parent / "gone.png", png())
    assert retry(tmp_path / "run").recovered == {"missing_image": 1}
    combine(tmp_path / "run", CombineOptions())
    assert [report.problems for report in verify(tmp_path / "run")] == [[], []]
    proof = prove(tmp_path / "run", 5, seed=1)
    assert (proof.equal, proof.differences) == (5, [])
    dataset = MeasuredDataset(tmp_path / "run")
    assert [dataset[row]["metadata"]["key"] for row in range(5)] == [f"x.jsonl#{number}" for number in (0, 1, 2, 7, 3)]
    write(lines.parent / "a.png", encoded(noisy(99, 9)))
    assert "measure is stored as Measure(sizes=" in prove(tmp_path / "run", 5, seed=1).differences[0]


@pytest.mark.parametrize("name", ["spans/size", "samples/seek", "samples/num_shared", "keys/bytes"])
def test_a_changed_byte_is_found(tmp_path: Path, lines: Path, name: str) -> None:
    small_run(tmp_path / "run", *MEASURE, source=lines)
    (path,) = (tmp_path / "run/shards").glob(f"00000*/{name}.memmap")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    problems = verify(tmp_path / "run")[0].problems
    assert len(problems) == 1
    assert path.name in problems[0]


def test_texts_alone_are_measured_whatever_an_image_tokenizer_is_set_to(tmp_path: Path) -> None:
    source = write(tmp_path / "x.jsonl", json_lines([{"text": "one"}, {"text": "two and three"}]))
    plan = small_run(tmp_path / "run", "stage=measure", "image.tokenizer=none", source=source)
    assert (plan.image, reasons(tmp_path / "run")) == (None, {})


@pytest.mark.slow
def test_no_loader_takes_it_for_tokens_and_other_stages_are_not_measured(tmp_path: Path, done: MeasuredDataset) -> None:
    with pytest.raises(UserError, match="holds raw records"):
        TokenDataset(done.path)
    small_run(tmp_path / "tokens", "data.n_train_samples=4")
    combine(tmp_path / "tokens", CombineOptions())
    with pytest.raises(UserError, match="was made by the stage tokenize, not by measure"):
        MeasuredDataset(tmp_path / "tokens")


def test_the_experiment_composes_with_paths_alone(tmp_path: Path) -> None:
    config = compose(["+experiments=measure", f"data.raw_data_dir={embedded.path('quickstart.tar')}"])
    assert (config.stage, config.text.tokenizer, config.finish.combine) == ("measure", "embedded", True)
    assert get_dataset(str(embedded.path("quickstart.tar")))[0]["metadata"]["source"] == "quickstart.tar"


def test_an_unfinished_run_is_combined_with_its_gap(tmp_path: Path) -> None:
    prepare(small_config(tmp_path / "run", *MEASURE))
    assert run_task(tmp_path / "run", StopAfter(6)) is TaskOutcome.STOPPED  # type: ignore[arg-type]
    manifest = combine(tmp_path / "run", CombineOptions(allow_tmp=True))
    assert 0 < manifest.counts.written < 96 == manifest.counts.inputs
    assert verify(tmp_path / "run/dataset")[0].problems == []
    dataset = MeasuredDataset(tmp_path / "run")
    assert [isinstance(dataset.measures([row])[0], Measure) for row in (0, len(dataset) - 1)] == [True] * 2


@pytest.mark.slow
def test_a_stopped_and_continued_run_has_the_same_bytes(tmp_path: Path, lines: Path) -> None:
    options = (*MEASURE, "loader.batch_size=2", "data.shard_size=3")
    small_run(tmp_path / "whole", *options, source=lines)
    prepare(small_config(tmp_path / "stopped", *options, source=lines))
    while run_task(tmp_path / "stopped", StopAfter(4)) is not TaskOutcome.FINISHED:  # type: ignore[arg-type]
        pass
    assert sha256_tree(tmp_path / "stopped/shards") == sha256_tree(tmp_path / "whole/shards")


@pytest.mark.slow
def test_a_picture_that_kills_its_process_is_rejected_and_its_neighbours_are_measured(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    prepare(small_config(folder, *MEASURE, "data.n_train_samples=24", "data.max_crashes=2"))
    python_path = install(tmp_path / "site", "segfault", [pictures()[9]], where=HEADERS)
    assert run_until_done(folder, python_path, 3)[-1] == 0
    assert [(row.index, row.reason) for row in rows_of(folder)] == [(9, "crash")]
    combine(folder, CombineOptions())
    dataset = MeasuredDataset(folder)
    assert [dataset[row]["metadata"]["key"] for row in (8, 9)] == [
        SourceDataset(embedded.path("quickstart.tar"))[row]["metadata"]["key"] for row in (8, 10)
    ]


def test_a_record_that_is_not_measured_is_not_there(tmp_path: Path, lines: Path) -> None:
    dataset = measured(tmp_path / "run", source=lines)
    for row in (4, -1, 100):
        with pytest.raises(IndexError):
            dataset.measures([row])
    lines.write_bytes(lines.read_bytes().replace(b"A picture", b"B picture"))
    with pytest.raises((UserError, BadSample), match="has changed since it was measured"):
        dataset[0]
    assert json.loads(json.dumps(dataset.fingerprint())) == MeasuredDataset(tmp_path / "run/dataset").fingerprint()
