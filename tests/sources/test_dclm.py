"""Files as those of mlfoundations/dclm-baseline-1.0 and of dolma: what becomes of each odd record.

pytest tests/sources/test_dclm.py
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from hpcdata import TokenDataset
from hpcdata.config.compose import compose
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.runs.planning import prepare
from hpcdata.work.task import TaskOutcome, run_task
from tests.smallruns import StopAfter

WARC = {
    "Content-Length": "12345",
    "Content-Type": "application/http; msgtype=response",
    "WARC-Block-Digest": "sha1:ABC",
    "WARC-Date": "2013-05-18T10:23:37Z",
    "WARC-Identified-Payload-Type": None,
    "WARC-Record-ID": "<urn:uuid:1>",
}


def row(text: object, **fields: object) -> dict[str, Any]:
    return {
        "bff_contained_ngram_count_before_dedupe": 3,
        "language_id_whole_page_fasttext": {"en": 0.93},
        "metadata": WARC,
        "previous_word_count": 12,
        "text": text,
        "url": "http://example.org/ä",
        "warcinfo": "robots: classic\r\nhostname: ip-10\r\n",
        "fasttext_openhermes_reddit_eli5_vs_rw_v2_bigram_200k_train_prob": 0.04,
        **fields,
    }


ROWS = [
    (row("A page.\n\nWith “quotes”, 鍵 and 🗝.  \n"), None),
    (row("metadata of other keys", metadata={"WARC-Date": 5, "x": {"y": [1]}}), None),
    (row("none of it", metadata=None, warcinfo=None), None),
    (row("a list", metadata=[1, "two"], url={"not": "a string"}), None),
    (row(""), "empty_text"),
    (row(" \n\t"), "empty_text"),
    (row("half \ud83d of a pair"), "unreadable_text"),
    (row("a \0 byte"), "unreadable_text"),
    (row(None), "missing_text"),
    (row(["not", "text"]), "bad_record"),
    ({"id": "d-1", "text": "of dolma", "source": "cc", "added": "2023", "attributes": {"a": [[0, 5, 0.5]]}}, None),
    (row("the last"), None),
]
TEXTS = [fields["text"] for fields, reason in ROWS if reason is None]
LINES = [json.dumps(fields) for fields, _ in ROWS]


def in_frames(lines: list[str]) -> bytes:
    """Two frames, the cut between them in the middle of a line."""
    data, compressor = "".join(f"{line}\n" for line in lines).encode(), zstandard.ZstdCompressor()
    cut = len(data) // 2
    return compressor.compress(data[:cut]) + compressor.compress(data[cut:])


def in_members(lines: list[str]) -> bytes:
    data = "".join(f"{line}\n" for line in lines).encode()
    return gzip.compress(data[:100]) + gzip.compress(data[100:])


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("shard_00000000_processed.jsonl.zst", in_frames),
        ("shard_00000000_processed.json.zst", in_frames),
        ("dolma-0001.json.gz", in_members),
        ("dolma-0001.jsonl.gz", in_members),
    ],
)
def test_texts_are_kept_and_the_others_are_counted(
    tmp_path: Path, name: str, packed: Callable[[list[str]], bytes]
) -> None:
    folder = tmp_path / "in/global-shard_01_of_10/local-shard_0_of_10"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(packed(LINES))
    run = tmp_path / "run"
    prepare(
        compose(["+experiments=liquid_text", f"data.raw_data_dir={tmp_path / 'in'}", f"data.token_output_dir={run}"])
    )
    assert run_task(run, StopAfter()) is TaskOutcome.FINISHED  # type: ignore[arg-type]
    combine(run, CombineOptions())
    dataset = TokenDataset(run)
    assert [text.text for example in dataset for text in example.texts] == TEXTS
    reasons = [reason for _, reason in ROWS if reason is not None]
    assert dataset.manifest.counts.rejected == {reason: reasons.count(reason) for reason in reasons}
