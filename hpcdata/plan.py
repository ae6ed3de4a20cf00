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
import os
import random
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hpcdata import config as configuration
from hpcdata import files
from hpcdata.columns import id_dtype_for
from hpcdata.config import RunConfig
from hpcdata.errors import UserError
from hpcdata.identities import ImageIdentity, TextIdentity
from hpcdata.shard import SHARD, ShardHeader
from hpcdata.sources.base import InputFile, Scan
from hpcdata.typed import checked
from hpcdata.version import code_version

FORMAT = "hpcdata-plan-1"
SIZES_A_BATCH = 8
"""A batch of pictures of several shapes is so many times what the network takes at once."""
_SHARD_NAME = re.compile(r"\d{5,}-of-\d{5,}")
_RETRY_NAME = re.compile(r"retry-\d{5,}")


class RunPaths:
    """Every name in an output directory."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.plan = self.root / "plan.json"
        self.runtime = self.root / "runtime.json"
        self.shards = self.root / "shards"
        self.claims = self.root / "claims"
        self.ledger = self.root / "ledger"
        self.logs = self.root / "logs"
        self.submissions = self.root / "submissions"
        self.report = self.root / "report.json"
        self.inputs = self.root / "inputs"
        self.batch_size = self.root / "batch_size.json"
        self.dataset = self.root / "dataset"
        self.parts = self.dataset / "parts"
        self.combined = self.root / "combined.json"
        self._known: set[str] = set()

    def find_shard(self, name: str) -> Path | None:
        """Folder of a committed shard, in `shards/` or where `combine --move_files` has left it."""
        for folder in (self.shards / name, self.parts / name):
            if (folder / SHARD).exists():
                return folder
        return None

    def list_committed(self) -> set[str]:
        """Names of the shards that are committed, each looked into once."""
        for folder in (self.shards, self.parts):
            for name in _list_names(folder):
                if (
                    name not in self._known
                    and _SHARD_NAME.fullmatch(name)
                    and os.path.exists(f"{folder}/{name}/{SHARD}")
                ):
                    self._known.add(name)
        return self._known

    def list_names(self) -> tuple[set[str], dict[str, list[str]]]:
        """(names of shards that look committed, shard -> names of its tmp_ folders), whatever the folders hold.

        Costs one listing and no look into a folder: shards get their names by one rename of a complete folder. For
        those that have lost their content since, see `find_remains`.
        """
        names = _list_names(self.shards)
        attempts: dict[str, list[str]] = {}
        for name in names:
            if name.startswith("tmp_"):
                attempts.setdefault(name[4:].split(".", 1)[0], []).append(name)
        return names | _list_names(self.parts), attempts

    def find_remains(self, names: Iterable[str], budget_s: float) -> set[str]:
        """Which of the listed shards have no shard.json: what is left of folders that somebody began to delete.

        One call to the file system a name, in any order and for `budget_s` at most; what was found whole is not
        looked at again. A run whose folders cannot all be looked at in time has `combine` as the last instance.
        """
        unseen = [name for name in names if name not in self._known]
        first = random.randrange(len(unseen)) if unseen else 0
        unseen = unseen[first:] + unseen[:first]
        until = time.monotonic() + budget_s
        remains: set[str] = set()
        for number, name in enumerate(unseen):
            if number % 256 == 0 and number and time.monotonic() > until:
                break
            whole = os.path.exists(f"{self.shards}/{name}/{SHARD}") or os.path.exists(f"{self.parts}/{name}/{SHARD}")
            (self._known if whole else remains).add(name)
        return remains

    def list_retries(self) -> dict[str, Path]:
        """Name -> folder of the parts that `hpcdata.rejects --retry` has added, in their order."""
        dataset = self.complete_dataset()
        found: dict[str, Path] = {}
        for folder in (self.shards, self.parts, *([dataset / "parts"] if dataset else [])):
            for path in folder.glob("retry-*"):
                if _RETRY_NAME.fullmatch(path.name) and (path / SHARD).exists():
                    found.setdefault(path.name, path)
        return dict(sorted(found.items()))

    def complete_dataset(self) -> Path | None:
        """The dataset that combine made of all shards, after which the shards themselves may be gone."""
        try:
            combined = files.read_json(self.combined)
            dataset, complete = self.root / combined["dataset"], combined["complete"]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{self.combined} is damaged: remove it and run python -m hpcdata.combine again") from None
        return dataset if complete and (dataset / "manifest.json").exists() else None


@dataclass(frozen=True, kw_only=True)
class PlannedInput:
    """One input file: where it is, what it looked like when planned, and what the scan found."""

    file: InputFile
    """Its path is relative to the output directory for listings that planning wrote there."""
    origin: str
    """Absolute path of what the user named: the file itself, or what a listing was made from."""
    size: int
    mtime_ns: int
    scan: Scan

    def is_like(self, stat: os.stat_result) -> bool:
        """Whether what the user named still looks as it did when it was planned."""
        is_listing = not Path(self.file.path).is_absolute()
        return stat.st_mtime_ns == self.mtime_ns and (is_listing or stat.st_size == self.size)

    def identity(self) -> list[Any]:
        """What the fingerprint covers: names and contents as far as known, no places and times."""
        return [self.file.label, self.file.format, self.size, vars(self.scan)]


@dataclass(frozen=True, kw_only=True)
class ShardSpec:
    """One shard: samples `first` to `first + count` of one input."""

    name: str
    shard: int
    source: PlannedInput
    source_index: int
    """Plan index of the input's first sample."""
    first: int
    count: int


@dataclass(frozen=True)
class Plan:
    """Fields are what plan.json holds; shards are derived."""

    config: RunConfig
    text: TextIdentity | None
    image: ImageIdentity | None
    inputs: tuple[PlannedInput, ...]
    code_version: str
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
        is_square = self.config.data.max_aspect_ratio is None
        return self.batch_size if is_square else max(1, self.batch_size // SIZES_A_BATCH)

    @cached_property
    def fingerprint(self) -> str:
        covered = {
            "format": FORMAT,
            "config": self.config.semantic_fields(),
            "text": dataclasses.asdict(self.text) if self.text else None,
            "image": dataclasses.asdict(self.image) if self.image else None,
            "inputs": [source.identity() for source in self.inputs],
        }
        return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()

    @property
    def num_samples(self) -> int:
        return self._sample_ends[-1] if self.inputs else 0

    @property
    def num_shards(self) -> int:
        return self._shard_ends[-1] if self.inputs else 0

    @property
    def vocab_size(self) -> int:
        """Ids below which everything that is stored lies."""
        text = self.text.vocab_size if self.text else 1
        image = self.image.codebook_size if self.image else 1
        return max(text, image, self.config.model.text_vocab_size or 1)

    @property
    def id_dtype(self) -> str:
        return id_dtype_for(self.vocab_size)

    def shard(self, shard: int) -> ShardSpec:
        which = bisect.bisect_right(self._shard_ends, shard)
        source = self.inputs[which]
        local = shard - (self._shard_ends[which - 1] if which else 0)
        first = local * self.config.data.shard_size
        return ShardSpec(
            name=f"{shard:05d}-of-{self.num_shards:05d}",
            shard=shard,
            source=source,
            source_index=self._sample_ends[which - 1] if which else 0,
            first=first,
            count=min(self.config.data.shard_size, source.scan.num_samples - first),
        )

    @cached_property
    def shard_names(self) -> list[str]:
        return [f"{shard:05d}-of-{self.num_shards:05d}" for shard in range(self.num_shards)]

    def shards(self) -> list[ShardSpec]:
        return [self.shard(index) for index in range(self.num_shards)]

    def shard_of(self, index: int) -> ShardSpec:
        """The shard that the sample with plan index `index` belongs to."""
        which = bisect.bisect_right(self._sample_ends, index)
        position = index - (self._sample_ends[which - 1] if which else 0)
        return self.shard((self._shard_ends[which - 1] if which else 0) + position // self.config.data.shard_size)

    def header(self, spec: ShardSpec) -> ShardHeader:
        return ShardHeader(
            name=spec.name,
            shard=spec.shard,
            num_shards=self.num_shards,
            fingerprint=self.fingerprint,
            id_dtype=self.id_dtype,
            source=spec.source.file.label,
            first_index=spec.source_index + spec.first,
            num_inputs=spec.count,
        )

    @cached_property
    def _sample_ends(self) -> list[int]:
        return _cumulate([source.scan.num_samples for source in self.inputs])

    @cached_property
    def _shard_ends(self) -> list[int]:
        return _cumulate([-(-source.scan.num_samples // self.config.data.shard_size) for source in self.inputs])

    def to_json(self) -> bytes:
        values = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "code_version": self.code_version,
            "num_samples": self.num_samples,
            "num_shards": self.num_shards,
            "id_dtype": self.id_dtype,
            "config": configuration.to_mapping(self.config),
            "text": dataclasses.asdict(self.text) if self.text else None,
            "image": dataclasses.asdict(self.image) if self.image else None,
            "inputs": [dataclasses.asdict(source) for source in self.inputs],
        }
        return files.to_json(values)


def load_plan(output_dir: Path | str) -> Plan:
    """Raises UserError when there is none, or when it is of another version or damaged."""
    path = RunPaths(output_dir).plan
    try:
        values = files.read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{output_dir} has no plan.json: it is not the output directory of a run") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): restore it, or use a new output directory") from None
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise UserError(f"{path} has format {found!r}, this version reads {FORMAT}: use the hpcdata that made it")
    try:
        plan = _from_mapping(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}): restore it, or use a new output directory") from None
    if plan.fingerprint != values.get("fingerprint"):
        other = (
            "" if plan.code_version == code_version() else f", or use the hpcdata that made it ({plan.code_version})"
        )
        raise UserError(f"{path} was edited: its content does not have its fingerprint; restore it{other}")
    return dataclasses.replace(plan, found_batch_size=_read_batch_size(RunPaths(output_dir).batch_size))


def load_runtime(output_dir: Path | str) -> RunConfig:
    """The configuration of the latest launch: transient fields are taken from it, semantic ones equal the plan's."""
    path = RunPaths(output_dir).runtime
    try:
        return configuration.from_mapping(files.read_json(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): launch the run again") from None


def _read_batch_size(path: Path) -> int | None:
    try:
        size = files.read_json(path)["batch_size"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        size = None
    if not isinstance(size, int) or size < 1:
        raise UserError(f"{path} is damaged: restore it, or use a new output directory")
    return size


def _from_mapping(values: dict[str, Any]) -> Plan:
    plan = Plan(
        config=configuration.from_mapping(values["config"]),
        text=TextIdentity(**values["text"]) if values["text"] else None,
        image=ImageIdentity(**values["image"]) if values["image"] else None,
        inputs=tuple(_input_from_mapping(source) for source in values["inputs"]),
        code_version=values["code_version"],
    )
    for source in plan.inputs:
        checked(source)
    return plan


def _input_from_mapping(values: dict[str, Any]) -> PlannedInput:
    file, scan = InputFile(**values["file"]), Scan.from_mapping(values["scan"])
    return PlannedInput(**{**values, "file": file, "scan": scan})


def _list_names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _cumulate(counts: list[int]) -> list[int]:
    ends, total = [], 0
    for count in counts:
        total += count
        ends.append(total)
    return ends
