"""What follows a finished run: combine and verify; on one machine, read batches back, and a picture to look at."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcdata.config.schema import RunConfig
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.dataset.manifest import Manifest
from hpcdata.dataset.verifying import Report, verify_dataset
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan
from hpcdata.runs.reject_limit import too_many
from hpcdata.samples import Kind, Sample, TextPart

log = logging.getLogger(__name__)

NUM_PICTURES = 8
BATCH_SIZE = 8
DEFAULT_LENGTH, MAX_LENGTH = 1024, 2**20


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A dataset that was made and looked at. What follows `problems` is there without any, and of tokens only."""

    manifest: Manifest
    problems: tuple[str, ...] = ()
    loader: str = ""
    """What a training job reads of it."""
    picture: Path | None = None


def combine_and_verify(output_dir: Path) -> tuple[Manifest, Report]:
    """Raises UserError when shards are missing or damaged; what the finished dataset lacks is in the report."""
    manifest = combine(output_dir, CombineOptions())
    return manifest, verify_dataset(manifest.folder)


def finish(output_dir: Path, plan: Plan, config: RunConfig) -> Finished:
    """Combines, verifies, reads one epoch, writes the preview. Raises UserError."""
    manifest, report = combine_and_verify(output_dir)
    if report.problems:
        return Finished(manifest=manifest, problems=tuple(report.problems))
    if reason := too_many(manifest.counts, config, output_dir):
        return Finished(manifest=manifest, problems=(reason,))
    if not plan.has_tokens:
        return Finished(manifest=manifest)
    loader, picture = _read_back(manifest.folder, plan), None
    if config.finish.preview and manifest.counts.images:
        picture = try_pictures(output_dir, plan, config, output_dir / config.finish.preview)
    return Finished(manifest=manifest, loader=loader, picture=picture)


def try_pictures(output_dir: Path, plan: Plan, config: RunConfig, path: Path) -> Path | None:
    """`write_pictures`, where the dataset is good without a picture as well: None, and a warning, when it fails."""
    try:
        write_pictures(output_dir, plan, config, path)
    except Exception as error:
        log.warning("the dataset is complete, but there is no %s: %s: %s", path.name, type(error).__name__, error)
        return None
    return path


def write_pictures(output_dir: Path, plan: Plan, config: RunConfig, path: Path) -> None:
    """A picture of samples spread over the run: the original beside what its codes decode to."""
    import torch

    from hpcdata import TokenDataset
    from hpcdata.encoders.image import tokenizer as image
    from hpcdata.report.preview import write_preview

    assert plan.image is not None
    threads = plan.config.image.cpu_threads
    tokenizer = image.build(plan.image, config.image.checkpoint, config.image.device, threads)
    dataset = TokenDataset(output_dir)
    pairs = []
    for row in np.linspace(0, len(dataset) - 1, min(NUM_PICTURES, len(dataset))).astype(int).tolist():
        example = dataset[row]
        spans = [span for span in example.spans if span.kind == Kind.IMAGE]
        if not spans:
            continue
        codes = np.asarray(spans[0].ids).astype(np.int64).reshape(1, spans[0].height, spans[0].width)
        decoded = tokenizer.decode(torch.from_numpy(codes))[0].permute(1, 2, 0).numpy()
        original, caption = _original(output_dir, plan, example.index)
        pairs.append((original, decoded, caption))
    write_preview(pairs, path)


def _original(output_dir: Path, plan: Plan, index: int) -> tuple[np.ndarray, str]:
    """The pixels of the sample's first image as they were encoded, and its first text."""
    from hpcdata.encoders.examples import PixelOptions, load_images
    from hpcdata.work.reading import read_shard

    spec = next(spec for spec in _specs(plan) if index < spec.source_index + spec.first + spec.count)
    skip = index - spec.source_index - spec.first
    record = next(iter(read_shard(plan, RunPaths(output_dir), spec, skip=skip)))
    assert isinstance(record, Sample)
    texts = [part.text for part in record.parts if isinstance(part, TextPart)]
    return load_images(record, PixelOptions.of(plan))[0], " ".join(texts)


def _specs(plan: Plan) -> Iterator:
    return (plan.shard(shard) for shard in range(plan.num_shards))


def _read_back(dataset_path: Path, plan: Plan) -> str:
    """Reads an epoch as a training job would; says what a batch looks like."""
    from hpcdata import T2I, Buckets, Interleaved, Text, TokenDataset, TokenLoader

    dataset = TokenDataset(dataset_path)
    if not dataset.num_tokens:
        return "nothing to read"
    batch_size = min(BATCH_SIZE, len(dataset))
    block_size = dataset.manifest.layout.block_size or DEFAULT_LENGTH
    counts = dataset.manifest.counts
    layout = T2I(block_size=block_size) if counts.images == counts.written else Text(max_length=block_size)
    loader = TokenLoader(dataset, global_batch_size=batch_size, layout=layout, num_epochs=1)
    if plan.config.data.keeps_shapes:
        interleaved = Interleaved(max_length=MAX_LENGTH, pad="batch_max")
        loader = TokenLoader(
            dataset,
            global_batch_size=batch_size,
            layout=interleaved,
            packing=Buckets(),
            drop_last=False,
            num_epochs=1,
        )
    started = time.perf_counter()
    batches = list(itertools.islice(loader, 1000))
    seconds = time.perf_counter() - started
    shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in batches[0].items())
    return f"{len(batches)} batches in {seconds:.2f} s: {shapes}"
