"""Examples, batches and shard headers for tests, made from a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcdata.config.values import from_mapping
from hpcdata.runs.identities import ImageIdentity, TextIdentity
from hpcdata.runs.inputs.planned import PlannedInput
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan, load_plan
from hpcdata.samples import Example, Kind, Role, Span
from hpcdata.shards.reject_ledger import RejectRow
from hpcdata.shards.shard import ShardHeader
from hpcdata.shards.tables import EncodedBatch
from hpcdata.shards.takeover import open_shard
from hpcdata.sources.base import InputFile, Scan

FINGERPRINT = "f" * 64


def example(index: int, *, vocab_size: int = 32001, side: int = 4) -> Example:
    """A text of 0 to 20 ids and an image of side x side codes, some of them 0."""
    rng = np.random.default_rng(index)
    text = Span(kind=Kind.TEXT, ids=rng.integers(0, vocab_size, rng.integers(1, 20)), role=Role.USER, loss=False)
    image = Span(kind=Kind.IMAGE, ids=rng.integers(0, 3, side * side), height=side, width=side)
    return Example(index=index, key=f"tärs/a.tar/{index:06d}", spans=(text, image))


def reject(index: int, reason: str = "unreadable_image") -> RejectRow:
    return RejectRow(
        index=index, key=f"tärs/a.tar/{index:06d}", source="a.tar", offset=index * 512, reason=reason, message="because"
    )


def batch(start: int, end: int) -> EncodedBatch:
    """Samples start to end - 1; every seventh is rejected, every eleventh a duplicate."""
    bad = [index for index in range(start, end) if index % 7 == 3 or index % 11 == 5]
    rows = [reject(index, "duplicate" if index % 11 == 5 else "unreadable_image") for index in bad]
    good = [example(index) for index in range(start, end) if index not in bad]
    return EncodedBatch(examples=good, rejects=rows, truncated=[len(good) % 2, *[0] * len(good)][: len(good)])


def header(*, num_inputs: int, shard: int = 0, num_shards: int = 1, first_index: int = 0) -> ShardHeader:
    return ShardHeader(
        name=f"{shard:05d}-of-{num_shards:05d}",
        shard=shard,
        num_shards=num_shards,
        fingerprint=FINGERPRINT,
        id_dtype="uint16",
        source="a.tar",
        first_index=first_index,
        num_inputs=num_inputs,
    )


def plan(num_samples: int, shard_size: int = 16) -> Plan:
    """The plan of one made-up input."""
    config = from_mapping({"data": {"raw_data_dir": "/in", "token_output_dir": "/out", "shard_size": shard_size}})
    cuts = tuple(range(0, num_samples, shard_size))
    source = PlannedInput(
        file=InputFile(path="/in/a.tar", label="a.tar", format="tar"),
        origin="/in/a.tar",
        size=1,
        mtime_ns=2,
        scan=Scan(num_samples=num_samples, every=shard_size, cuts=cuts),
    )
    text = TextIdentity(
        engine="tokenizers",
        vocab_size=32001,
        sha256="0" * 64,
        bos_id=1,
        eos_id=2,
        pad_id=0,
        unk_id=0,
        image_token_id=None,
    )
    image = ImageIdentity(preset="embedded", codebook_size=16384, downsample=8, sha256="1" * 64, precision="fp32")
    return Plan(config=config, text=text, image=image, inputs=(source,), code_version="0")


def run(folder: Path, num_samples: int = 56, *, unfinished: dict[int, int] | None = None) -> Plan:
    """Writes a run's plan and shards; `unfinished` maps shards to the samples in their checkpoint (0: none at all)."""
    made = plan(num_samples)
    paths = RunPaths(folder)
    paths.shards.mkdir(parents=True)
    paths.plan.write_bytes(made.to_json())
    for spec in made.shards():
        done = (unfinished or {}).get(spec.shard, spec.count)
        if not done:
            continue
        writer = open_shard(paths.shards, made.header(spec), "made")
        assert writer is not None
        writer.append(batch(spec.first, spec.first + done))
        if done == spec.count:
            writer.commit()
        else:
            writer.checkpoint()
            writer.close()
    return made


def complete(folder: Path) -> None:
    """Finishes what `run` has left unfinished."""
    paths = RunPaths(folder)
    made = load_plan(folder)
    for spec in made.shards():
        writer = None if paths.find_shard(spec.name) else open_shard(paths.shards, made.header(spec), "completed")
        if writer is not None:
            writer.append(batch(spec.first + writer.samples_read, spec.first + spec.count))
            writer.commit()
