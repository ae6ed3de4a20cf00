"""Raw texts beside ids: whole, exact, checked, and unseen by loaders.   pytest tests/stages/test_raw_texts.py"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from hpcdata import Text, TokenDataset, TokenLoader
from hpcdata.base.digest import sha256_file
from hpcdata.base.errors import UserError
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.dataset.verifying import verify
from hpcdata.encoders.building import build
from hpcdata.runs.planning import prepare
from hpcdata.samples import Kind, PreparedBatch, Role, Sample, TextPart
from hpcdata.shards import shard
from hpcdata.shards.takeover import open_shard
from hpcdata.work.prove import prove
from tests.media.pictures import encoded, noisy
from tests.smallruns import small_config, small_run

TEXTS = ["a cat", "  spaces stay \n", "größer 鍵 🗝 é", "long " * 40, "x"] * 3
KEPT = ("text.keep_raw=true", "image.tokenizer=none", "data.n_train_samples=null", "data.shard_size=4")


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("in") / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*TEXTS[:5], "", *TEXTS[5:]]), "utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, lines: Path) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "run"
    small_run(folder, *KEPT, "data.source=text", source=lines)
    combine(folder, CombineOptions())
    return folder


def problems(run: Path) -> list[str]:
    return [problem for report in verify(run) for problem in report.problems]


def texts_of(dataset: TokenDataset) -> list[str]:
    return [text.text for example in dataset for text in example.texts]


def test_texts_are_kept_to_the_byte_also_where_ids_are_cut(run: Path) -> None:
    dataset = TokenDataset(run)
    assert texts_of(TokenDataset(run)) == TEXTS
    assert max(len(example.spans[0].ids) for example in dataset) == 16
    assert dataset.manifest.counts.rejected == {"empty_text": 1}
    assert problems(run) == []


def test_texts_of_many_rows_come_at_once_in_any_order(run: Path) -> None:
    dataset, rows = TokenDataset(run), np.array([14, 0, 3, 3, 7, 8])
    assert [[text.text for text in texts] for texts in dataset.texts(rows)] == [[TEXTS[row]] for row in rows]
    assert dataset.texts(np.zeros(0, np.int64)) == []


def test_opened_parts_hold_no_files_open(run: Path) -> None:
    dataset = TokenDataset(run)
    before = len(os.listdir("/proc/self/fd"))
    assert len([example.texts for example in dataset]) == len(TEXTS)
    assert len(os.listdir("/proc/self/fd")) == before


def test_texts_are_kept_without_a_tokenizer(tmp_path: Path, lines: Path) -> None:
    for source in ("text", "auto"):
        folder = tmp_path / source
        small_run(folder, *KEPT, "text.tokenizer=none", f"data.source={source}", source=lines)
        combine(folder, CombineOptions())
        assert texts_of(TokenDataset(folder)) == TEXTS
        assert problems(folder) == []
        assert TokenDataset(folder).num_tokens == 0
        assert TokenDataset(folder).decode(2).texts == [TEXTS[2]]
        assert prove(folder, 99, 0).equal == len(TEXTS)


def test_without_texts_and_tokenizers_there_is_nothing_to_do(tmp_path: Path, lines: Path) -> None:
    with pytest.raises(UserError, match=r"nothing would be encoded; text\.keep_raw=true keeps texts"):
        small_run(tmp_path / "run", "text.tokenizer=none", "image.tokenizer=none", source=lines)


@pytest.mark.slow
def test_a_text_stands_before_its_span_with_role_and_loss(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(encoded(noisy(40, 40)))
    talk = [
        {"from": "human", "value": "<image>\nWhat is it?"},
        {"from": "gpt", "value": "Noise."},
    ]
    (tmp_path / "in/talk.json").write_text(json.dumps([{"image": "a.png", "conversations": talk}]))
    for tokenizer in ("embedded", "none"):
        folder = tmp_path / tokenizer
        small_run(
            folder,
            "text.keep_raw=true",
            f"text.tokenizer={tokenizer}",
            "data.n_train_samples=null",
            source=tmp_path / "in/talk.json",
        )
        combine(folder, CombineOptions())
        (example,) = TokenDataset(folder)
        shown = [(text.text, text.place, text.role, text.loss) for text in example.texts]
        last = 2 if tokenizer == "embedded" else 1
        assert shown == [("\nWhat is it?", 1, Role.USER, False), ("Noise.", last, Role.ASSISTANT, True)]
        assert [span.kind for span in example.spans] == [Kind.IMAGE, Kind.TEXT, Kind.TEXT][
            : last + 1 if last > 1 else 1
        ]
        assert prove(folder, 9, 0).equal == 1


def test_loaders_and_the_ids_on_disk_are_those_of_a_run_without(tmp_path: Path, run: Path, lines: Path) -> None:
    plain = tmp_path / "plain"
    small_run(plain, *KEPT[1:], "data.source=text", source=lines)
    combine(plain, CombineOptions())
    batches = [
        [
            {name: value.tolist() for name, value in batch.items()}
            for batch in TokenLoader(TokenDataset(path), global_batch_size=3, layout=Text(max_length=16), num_epochs=1)
        ]
        for path in (run, plain)
    ]
    assert batches[0] == batches[1]
    for path in plain.glob("shards/*/*/*.memmap"):
        assert path.read_bytes() == (run / path.relative_to(plain)).read_bytes()


def test_they_are_another_run_and_another_content(tmp_path: Path, run: Path, lines: Path) -> None:
    plain = small_run(tmp_path / "plain", *KEPT[1:], "data.source=text", source=lines)
    combine(tmp_path / "plain", CombineOptions())
    kept, without = TokenDataset(run).manifest, TokenDataset(tmp_path / "plain").manifest
    assert kept.fingerprint != plain.fingerprint
    assert kept.content_digest != without.content_digest
    with pytest.raises(UserError, match=r"text\.keep_raw was False, now True"):
        small_run(tmp_path / "plain", *KEPT, "data.source=text", source=lines)


def test_one_part_holds_them_as_many_do(tmp_path: Path, lines: Path, run: Path) -> None:
    folder = tmp_path / "run"
    small_run(folder, *KEPT, "data.source=text", source=lines)
    combine(folder, CombineOptions(compact=True))
    dataset = TokenDataset(folder)
    assert [len(dataset.manifest.parts), texts_of(TokenDataset(folder))] == [1, TEXTS]
    assert dataset.manifest.content_digest == TokenDataset(run).manifest.content_digest
    assert problems(folder) == []
    assert prove(folder, 99, 0).equal == len(TEXTS)


@pytest.mark.parametrize(
    "path", ["raw/bytes.memmap", "texts/place.memmap", "texts/num_bytes.memmap", "samples/first_text.memmap"]
)
def test_a_changed_text_is_found_though_its_sha256_is_right(tmp_path: Path, run: Path, path: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "dataset")
    (folder / "combined.json").unlink()
    of_shard = folder / "shards/00001-of-00004"
    data = np.fromfile(of_shard / path, np.uint8)
    data[0] ^= 1
    data.tofile(of_shard / path)
    summary = shard.read_summary(of_shard)
    files = {**summary.files, path: sha256_file(of_shard / path)}
    (of_shard / shard.SHARD).write_bytes(dataclasses.replace(summary, files=files).to_json())
    assert any("content digest" in problem or "end to end" in problem for problem in problems(folder))
    if path in ("raw/bytes.memmap", "texts/place.memmap"):
        (difference,) = prove(folder, 99, 0).differences
        assert "raw text 0" in difference


def test_an_unfinished_run_gives_those_of_its_checkpoint(tmp_path: Path, lines: Path) -> None:
    plan = prepare(small_config(tmp_path / "run", *KEPT, "data.shard_size=16", source=lines))
    encoder = build(plan, plan.config).encoder(plan)
    texts = [Sample(position=row, key=f"{row}", parts=(TextPart(text=text),)) for row, text in enumerate(TEXTS)]
    batches = [PreparedBatch(records=texts[at : at + 5], prepared=[[]] * 5) for at in (0, 5)]
    (tmp_path / "run/shards").mkdir()
    writer = open_shard(tmp_path / "run/shards", plan.header(plan.shard(0)), "one")
    writer.append(encoder.encode(batches[0], first_index=0, source=""))
    writer.checkpoint()
    writer.append(encoder.encode(batches[1], first_index=0, source=""))
    assert texts_of(TokenDataset(tmp_path / "run", allow_tmp=True)) == TEXTS[:5]
