"""What a stage is: all that planning, claims, checkpoints, commits, poison, retries, combine and proof ask of it.

A stage is a module `hpcdata.stages.NAME` with a value `STAGE`; `stage=NAME` chooses it. Nothing else needs to know it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from hpcdata.runs import registry

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from hpcdata.config.schema import RunConfig
    from hpcdata.runs.identities import ImageIdentity, TextIdentity
    from hpcdata.runs.paths import RunPaths
    from hpcdata.runs.plan import Plan
    from hpcdata.samples import Batch, Record
    from hpcdata.shards.counts import Counts
    from hpcdata.shards.made import Made
    from hpcdata.shards.schema import Schema
    from hpcdata.shards.shard import ShardSummary
    from hpcdata.sources.base import InputFile, Options


@dataclass(frozen=True, kw_only=True)
class Identities:
    """What the plan remembers of the tokenizers of a run; equal ones make equal bytes."""

    text: TextIdentity | None = None
    image: ImageIdentity | None = None


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a committed shard holds, by its own bytes."""

    content: int
    """Its content digest."""
    written: np.ndarray
    """[num_samples] int64: plan index of each sample, in the order in which they are stored."""
    problems: list[str] = field(default_factory=list)


class Maker(Protocol):
    """The stage in one process, with all that it has loaded."""

    plan: Plan
    """The plan with what could not be known before (`loader.batch_size=auto`)."""
    device: str
    """What it computes on; recorded in the ledger. "none" where that cannot matter."""
    num_ahead: int
    """How many batches may be in work at once; 0: each one is done when `start` returns."""

    def start(self, batch: Batch, *, first_index: int, source: str) -> Callable[[], Made]:
        """Begins a batch, and returns what ends it.

        first_index: plan index of position 0 of the records; source: label of their input, for rejects, where they do
        not name one themselves.
        """
        ...


class Stage(Protocol):
    """One kind of work. Its methods are light: what is heavy is imported where it is used."""

    def settle(self, config: RunConfig) -> RunConfig:
        """What one option says about another. Raises UserError."""
        ...

    def settings(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the semantic keys that change the bytes that this stage writes: they enter the fingerprint."""
        ...

    def identify(self, config: RunConfig) -> Identities:
        """Checks the settings and the files that they name, without torch. Raises UserError."""
        ...

    def options(self, config: RunConfig) -> Options:
        """Which records of a source are taken, and what of each is read."""
        ...

    def check_inputs(self, config: RunConfig, inputs: Sequence[InputFile]) -> None:
        """Raises UserError for inputs that the settings do not fit."""
        ...

    def contents(self, plan: Plan, name: str) -> Schema | None:
        """What the files of shard `name` are; None for tokens."""
        ...

    def predict(self, plan: Plan) -> tuple[int, int]:
        """(bytes, files a shard) that the run will write, roughly and on the safe side."""
        ...

    def preparing(self, plan: Plan) -> Callable[[Record], list[np.ndarray]] | None:
        """What is done to records in threads before their batch is made, and for suspected ones in a child process.

        It reads and decodes what a record refers to, as uint8 arrays, and raises BadSample. None: there is nothing.
        It may raise MachineFault, for what no record is to be rejected for. plan: see `with_runtime`. It may also be
        a `PreparesAtOnce`.
        """
        ...

    def rehearsal(self, plan: Plan, runtime: RunConfig) -> Callable[[Record], None] | None:
        """For the child alone: does to a record what else could kill a process. None: nothing else can."""
        ...

    def takes_documents(self, plan: Plan, format_name: str) -> bool:
        """Whether batches of this format come in bulk, as `Documents` or `RowRange`."""
        ...

    def open(self, plan: Plan, paths: RunPaths, runtime: RunConfig) -> Maker:
        """Loads what is needed. Raises UserError when a file is not the one that was planned with."""
        ...

    def check(self, folder: Path, summary: ShardSummary) -> Checked:
        """Reads a committed shard back, after its files had their sha256. Raises ValueError when it is damaged."""
        ...

    def compare(self, made: Made, index: int, folder: Path, row: int) -> str:
        """Where a sample that was made again differs from the one stored in `row`, in words; empty when nowhere."""
        ...


@runtime_checkable
class PreparesAtOnce(Protocol):
    """What `Stage.preparing` gives where records wait for others most of the time: many are prepared by one thread."""

    most: int
    """How many records are begun at a time."""
    over: Callable[[str, int], AbstractContextManager[None]]
    """Set by whoever looks at what threads do: entered by one that decodes so many pictures of the record of a key."""

    def __call__(self, record: Record) -> list[np.ndarray]:
        """Prepares one record, and waits for it."""
        ...

    def begin(self, record: Record, done: Callable[[Callable[[], list[np.ndarray]]], None]) -> None:
        """Returns at once. `done` is called later, in any thread, with what returns or raises what came of it."""
        ...

    def close(self) -> None:
        """What is not prepared by now will not be."""
        ...


@runtime_checkable
class Arranges(Protocol):
    """A stage whose dataset is also laid out as another system reads it, in a folder of its own."""

    def arrange(self, plan: Plan, runtime: RunConfig, dataset: Path) -> Path:
        """Makes that folder of a complete dataset, or finds it (`hpcdata.formats.arranging`); returns it.

        Called whenever shards are combined, before the run says that they are. Raises UserError.
        """
        ...


@runtime_checkable
class Finds(Protocol):
    """A stage that knows of what it arranges whether it is there, without its run."""

    def find(self, config: RunConfig) -> tuple[Path, Counts] | None:
        """Where it is, and its account, if `config` would make just that. Raises UserError for another one there."""
        ...


def arrange(plan: Plan, runtime: RunConfig, dataset: Path) -> Path | None:
    """What `Arranges.arrange` says; None of other stages."""
    stage = find_stage(plan.config.stage)
    return stage.arrange(plan, runtime, dataset) if isinstance(stage, Arranges) else None


def with_runtime(plan: Plan, runtime: RunConfig) -> Plan:
    """The plan for `Stage.preparing` in a task: its transient settings are those of the latest launch."""
    return dataclasses.replace(plan, config=runtime)


def find_stage(name: str) -> Stage:
    """Raises UserError for a stage that does not exist."""
    return cast(Stage, registry.find(name))
