"""The plan: the frozen description of a run, `plan.json` in the output directory.

It lists the inputs with their sizes and shard cuts, the configuration, and the identities of tokenizers and weights.
It is created once, atomically (`planning` builds it); array tasks read it and never list inputs themselves. The
fingerprint covers what determines the output bytes and no path or time: the same data planned elsewhere has the same.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

from hpcdata.base import sealed
from hpcdata.base.errors import Failed, UserError
from hpcdata.base.typed import checked
from hpcdata.base.version import code_version
from hpcdata.config import values as configuration
from hpcdata.config.schema import RunConfig
from hpcdata.runs import registry
from hpcdata.runs.identities import ImageIdentity, TextIdentity
from hpcdata.runs.inputs.planned import PlannedInput, Segment, ShardSpec
from hpcdata.runs.paths import RunPaths
from hpcdata.shards.columns import id_dtype_for
from hpcdata.shards.schema import Schema
from hpcdata.shards.shard import ShardHeader
from hpcdata.sources.account import Found, NotRead

FORMAT = "hpcdata-plan-1"
SIZES_A_BATCH = 8
"""A batch of pictures of several shapes is so many times what the network takes at once."""


class _Stage(Protocol):
    """What a plan asks of its stage, see `stage`."""

    def settings(self, fields: Mapping[str, Any]) -> dict[str, Any]: ...

    def contents(self, plan: Plan, name: str) -> Schema | None: ...


@dataclass(frozen=True)
class Plan:
    """Fields are what plan.json holds; shards are derived."""

    config: RunConfig
    text: TextIdentity | None
    image: ImageIdentity | None
    inputs: tuple[PlannedInput, ...]
    code_version: str
    joins_inputs: bool = False
    """Shards are cut by samples alone, across inputs; False: no shard holds samples of two, as older plans say."""
    found: Found | None = None
    """How many files the folders of inputs hold; None in older plans."""
    not_read: tuple[NotRead, ...] = ()
    """Files in the folders of inputs that are neither an input nor a part of a sample."""
    witnesses: tuple[str, ...] = ()
    """Files of some records that were there (`hpcdata.runs.witnesses`)."""
    found_batch_size: int | None = None
    """Of `loader.batch_size=auto`, as soon as a task has found it (`encoders.batching`); not part of plan.json."""

    @property
    def batch_size(self) -> int:
        """Samples of one encoder batch. Raises UserError if none is found yet."""
        configured = self.config.loader.batch_size
        if configured != "auto":
            return configured
        if self.found_batch_size is None:
            raise UserError("loader.batch_size=auto, and no task of this run has found a size yet: run one first")
        return self.found_batch_size

    @property
    def picture_batch_size(self) -> int:
        """Pictures that a network takes at a time. Of several sizes there must be enough in a batch for each."""
        keeps_shapes = self.config.data.keeps_shapes
        return max(1, self.batch_size // SIZES_A_BATCH) if keeps_shapes else self.batch_size

    @cached_property
    def fingerprint(self) -> str:
        covered = {
            "format": FORMAT,
            "config": self._stage.settings(self.config.semantic_fields()),
            "text": dataclasses.asdict(self.text) if self.text else None,
            "image": dataclasses.asdict(self.image) if self.image else None,
            "inputs": [source.identity() for source in self.inputs],
            **({"joins_inputs": True} if self.joins_inputs else {}),
        }
        return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()

    @property
    def num_samples(self) -> int:
        return self._sample_ends[-1] if self.inputs else 0

    @property
    def num_left_out(self) -> int:
        """Records that a mix leaves out by its sampling strategies: they are no inputs."""
        return sum(item.num_left_out for item in self.inputs)

    @property
    def num_shards(self) -> int:
        return self._shard_ends[-1] if self.inputs else 0

    @property
    def has_tokens(self) -> bool:
        """Whether shards hold tokens, which loaders read."""
        return self.contents is None or self.contents.has_tokens

    @property
    def contents(self) -> Schema | None:
        """What the shards of its stage hold, but for names of their own; None for tokens alone."""
        return self._stage.contents(self, "")

    @property
    def vocab_size(self) -> int:
        """Ids below which everything that is stored lies."""
        text = self.text.vocab_size if self.text else 1
        image = self.image.codebook_size if self.image else 1
        return max(text, image, self.config.model.text_vocab_size or 1)

    @property
    def id_dtype(self) -> str:
        """Of the ids in its shards, empty where there are none."""
        return id_dtype_for(self.vocab_size) if self.has_tokens else ""

    def shard(self, shard: int) -> ShardSpec:
        size = self.config.data.shard_size
        if self.joins_inputs:
            start, end = shard * size, min((shard + 1) * size, self.num_samples)
        else:
            which = bisect.bisect_right(self._shard_ends, shard)
            local = shard - (self._shard_ends[which - 1] if which else 0)
            start = (self._sample_ends[which - 1] if which else 0) + local * size
            end = min(start + size, self._sample_ends[which])
        name = f"{shard:05d}-of-{self.num_shards:05d}"
        return ShardSpec(name=name, shard=shard, segments=tuple(self._segments(start, end)))

    def _segments(self, start: int, end: int) -> Iterator[Segment]:
        which = bisect.bisect_right(self._sample_ends, start)
        while start < end:
            begin, until = self._sample_ends[which - 1] if which else 0, min(end, self._sample_ends[which])
            if start < until:
                source = self.inputs[which]
                yield Segment(source=source, source_index=begin, first=start - begin, count=until - start)
            start, which = until, which + 1

    @cached_property
    def shard_names(self) -> list[str]:
        return [f"{shard:05d}-of-{self.num_shards:05d}" for shard in range(self.num_shards)]

    def shards(self) -> list[ShardSpec]:
        return [self.shard(index) for index in range(self.num_shards)]

    def shard_of(self, index: int) -> ShardSpec:
        """The shard that the sample with plan index `index` belongs to."""
        if self.joins_inputs:
            return self.shard(index // self.config.data.shard_size)
        which = bisect.bisect_right(self._sample_ends, index)
        position = index - (self._sample_ends[which - 1] if which else 0)
        return self.shard((self._shard_ends[which - 1] if which else 0) + position // self.config.data.shard_size)

    def header(self, spec: ShardSpec) -> ShardHeader:
        return self.header_of(
            spec.name,
            spec.shard,
            source=spec.source,
            first_index=spec.source_index + spec.first,
            num_inputs=spec.count,
        )

    def header_of(self, name: str, shard: int, *, source: str, first_index: int, num_inputs: int) -> ShardHeader:
        return ShardHeader(
            name=name,
            shard=shard,
            num_shards=self.num_shards,
            fingerprint=self.fingerprint,
            id_dtype=self.id_dtype,
            source=source,
            first_index=first_index,
            num_inputs=num_inputs,
            stage=self.config.stage,
            contents=self._stage.contents(self, name),
        )

    @property
    def _stage(self) -> _Stage:
        return cast(_Stage, registry.find(self.config.stage))

    @cached_property
    def _sample_ends(self) -> list[int]:
        return _cumulate([source.scan.num_samples for source in self.inputs])

    @cached_property
    def _shard_ends(self) -> list[int]:
        if self.joins_inputs:
            return [-(-self.num_samples // self.config.data.shard_size)]
        return _cumulate([-(-source.scan.num_samples // self.config.data.shard_size) for source in self.inputs])

    def to_json(self) -> bytes:
        values: dict[str, Any] = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "code_version": self.code_version,
            "num_samples": self.num_samples,
            "num_shards": self.num_shards,
            "id_dtype": self.id_dtype,
            "config": configuration.to_mapping(self.config),
            "text": dataclasses.asdict(self.text) if self.text else None,
            "image": dataclasses.asdict(self.image) if self.image else None,
            "inputs": [source.to_mapping() for source in self.inputs],
            **({"joins_inputs": True} if self.joins_inputs else {}),
        }
        if self.found is not None:
            values["found"] = dataclasses.asdict(self.found)
        if self.not_read:
            values["not_read"] = [dataclasses.asdict(item) for item in self.not_read]
        if self.witnesses:
            values["witnesses"] = list(self.witnesses)
        return sealed.to_json(values)


def arithmetic(plan: Plan) -> dict[str, Any] | None:
    """How codes are computed (`encoders.image.tokenizer.set_reproducible`), None for a run without images."""
    if plan.image is None:
        return None
    threads, batch_size = plan.config.image.cpu_threads, plan.batch_size
    switches = {
        "compile": plan.config.image.compile,
        "tf32": False,
        "cudnn_benchmark": False,
        "deterministic_algorithms": True,
    }
    return {"dtype": plan.image.precision, "cpu_threads": threads, "batch_size": batch_size, **switches}


def load_plan(output_dir: Path | str) -> Plan:
    """Raises UserError when there is none, or when it is of another version or damaged."""
    path = RunPaths(output_dir).plan
    try:
        values = sealed.read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        if not Path(output_dir).exists():
            raise UserError(f"{output_dir} does not exist: expected the output directory of a run") from None
        raise UserError(f"{output_dir} has no plan.json: it is not the output directory of a run") from None
    except ValueError as error:
        raise Failed(f"{path} is damaged ({error}): restore it, or use a new output directory") from None
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise UserError(f"{path} has format {found!r}, this version reads {FORMAT}: use the hpcdata that made it")
    try:
        plan = _from_mapping(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Failed(f"{path} is damaged ({error}): restore it, or use a new output directory") from None
    if plan.fingerprint != values.get("fingerprint"):
        other = (
            "" if plan.code_version == code_version() else f", or use the hpcdata that made it ({plan.code_version})"
        )
        raise Failed(f"{path} was edited: its content does not have its fingerprint; restore it{other}")
    return dataclasses.replace(plan, found_batch_size=_read_batch_size(RunPaths(output_dir).batch_size))


def load_runtime(output_dir: Path | str) -> RunConfig:
    """The configuration of the latest launch: transient fields are taken from it, semantic ones equal the plan's."""
    path = RunPaths(output_dir).runtime
    try:
        return configuration.from_mapping(sealed.read_json(path))
    except FileNotFoundError:
        load_plan(output_dir)  # raises UserError for what is no run
        raise Failed(f"{path} is missing: launch with the line of the first launch, which writes it again") from None
    except (OSError, ValueError) as error:
        remedy = "launch with the line of the first launch, which writes it again"
        raise Failed(f"{path} cannot be read ({error}): {remedy}") from None


def _read_batch_size(path: Path) -> int | None:
    try:
        size = sealed.read_json(path)["batch_size"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        size = None
    if not isinstance(size, int) or size < 1:
        raise Failed(f"{path} is damaged: restore it, or use a new output directory")
    return size


def _from_mapping(values: dict[str, Any]) -> Plan:
    plan = Plan(
        config=configuration.from_mapping(values["config"]),
        text=TextIdentity(**values["text"]) if values["text"] else None,
        image=ImageIdentity(**values["image"]) if values["image"] else None,
        inputs=tuple(PlannedInput.from_mapping(source) for source in values["inputs"]),
        code_version=values["code_version"],
        joins_inputs=values.get("joins_inputs", False) is True,
        found=Found(**values["found"]) if values.get("found") else None,
        not_read=tuple(NotRead(**item) for item in values.get("not_read", ())),
        witnesses=tuple(map(str, values.get("witnesses", ()))),
    )
    for item in (*plan.inputs, *plan.not_read, *([plan.found] if plan.found else [])):
        checked(item)
    return plan


def _cumulate(counts: list[int]) -> list[int]:
    ends, total = [], 0
    for count in counts:
        total += count
        ends.append(total)
    return ends
