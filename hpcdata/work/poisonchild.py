"""The child process that reads and decodes suspected records, and what it tells its parent (`poison`).

    {"begins": 51}                                   it reads the shard's sample 51
    {"record": {...}}                                it has read it, and begins to decode
    {"shapes": [[32, 32, 3]]} + bytes as they are    what was prepared of it: pixels, or raw members
    {"reason": "truncated", "message": "..."}        or why there are none
    {"error": "cannot read in.tar: ..."}             the last line when it is no sample's fault
    {"unreadable": 51, "errno": 5, ...}              or when the bytes of one cannot be read, see `unreadable`

    python -m hpcdata.work.poisonchild OUT SHARD FIRST END CONDEMNED,... TASK

Without SHARD it only decodes a picture and a text that come with hpcdata, to tell a record from the machine.
Condemned samples are read and not decoded. TASK: the name under which the parent notes what it cannot read.

Nothing that the child says is code: records travel as JSON, every field of them whichever they have, but for where the
bytes of their pictures stand:

    {"Sample": {"position": 3, "parts": [{"TextPart": {"text": "a cat", "role": {"Role": 2}, ...}}], ...}}

A dataclass or an enum stands under its name. A list of JSON is a tuple; lists and mappings stand under `list`, `map`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import os
import signal
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from hpcdata import embedded
from hpcdata.base import memory
from hpcdata.base.errors import UserError
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import load_plan, load_runtime
from hpcdata.runs.stage import find_stage, with_runtime
from hpcdata.samples import (
    BadSample,
    Blob,
    Duplicate,
    ImagePart,
    Member,
    Place,
    Reason,
    Record,
    Reject,
    Role,
    Sample,
    TextPart,
)
from hpcdata.work.crashnotes import CrashNotes
from hpcdata.work.preparing import Prepare, num_pictures
from hpcdata.work.reading import changes, read_shard
from hpcdata.work.unreadable import Unreadable, UnreadableRecord
from hpcdata.work.watchdog import Watchdog, cpu_limit

Pixels = list[np.ndarray] | BadSample
_KINDS: dict[str, Any] = {
    kind.__name__: kind for kind in (Sample, Reject, Duplicate, TextPart, ImagePart, Member, Blob, Place)
}
_ENUMS: dict[str, Any] = {kind.__name__: kind for kind in (Role, Reason)}
_LIST, _MAP = "list", "map"

SAMPLES_PER_LIMIT = 20
"""One sample alone may take this part of `data.max_batch_s`."""


@dataclasses.dataclass(kw_only=True)
class Progress:
    """What a parent has heard of its child."""

    num_made: int = 0
    has_begun: bool = False
    record: Record | None = None
    """What is being decoded."""
    _fresh: list[tuple[Record, Pixels]] = dataclasses.field(default_factory=list)

    @property
    def is_reading(self) -> bool:
        return self.record is None

    def take(self) -> list[tuple[Record, Pixels]]:
        """What was made since the last call."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def read_from(self, stream: IO[bytes]) -> bool:
        """Takes in the child's next line; False when it ends, or breaks off. Raises UserError in its name."""
        line = stream.readline()
        if not line.endswith(b"\n"):
            return False
        values = json.loads(line)
        if "error" in values:
            raise UserError(values["error"])
        if "unreadable" in values:
            error = OSError(values["errno"], values["strerror"], values["filename"])
            raise UnreadableRecord(error, values["unreadable"])
        if "begins" in values:
            self.has_begun = True
        elif "record" in values:
            self.record = from_values(values["record"])
        else:
            assert self.record is not None
            try:
                pixels = _read_pixels(values, stream)
            except EOFError:
                return False
            self._fresh.append((self.record, pixels))
            self.record = None
            self.num_made += 1
        return True


def _read_pixels(values: dict[str, Any], stream: IO[bytes]) -> Pixels:
    if "reason" in values:
        return BadSample(Reason(values["reason"]), values["message"])
    return [_read_array(shape, stream) for shape in values["shapes"]]


def _read_array(shape: Sequence[int], stream: IO[bytes]) -> np.ndarray:
    size = int(np.prod(shape))
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return np.frombuffer(data, np.uint8).reshape(shape)


def to_values(record: Record) -> dict[str, Any]:
    return cast("dict[str, Any]", _packed(record))


def from_values(values: dict[str, Any]) -> Record:
    """Raises KeyError or TypeError for what `to_values` has not made."""
    found = _unpacked(values)
    if not isinstance(found, Record):
        raise TypeError(f"expected a record, found {type(found).__name__}")
    return found


def _packed(value: object) -> object:
    match value:
        case Blob():
            value = dataclasses.replace(value, path="", offset=0, size=None, data=None)
        case enum.Enum():
            return {_known(_ENUMS, value): value.value}
        case tuple():
            return [_packed(item) for item in value]
        case list():
            return {_LIST: [_packed(item) for item in value]}
        case dict():
            return {_MAP: {name: _packed(item) for name, item in value.items()}}
        case None | bool() | int() | float() | str():
            return value
    fields = dataclasses.fields(cast("Any", value))
    return {_known(_KINDS, value): {field.name: _packed(getattr(value, field.name)) for field in fields}}


def _known(kinds: dict[str, Any], value: object) -> str:
    name = type(value).__name__
    if kinds.get(name) is not type(value):
        raise TypeError(f"{name} is no part of a record")
    return name


def _unpacked(value: object) -> object:
    if isinstance(value, list):
        return tuple(map(_unpacked, value))
    if not isinstance(value, dict):
        return value
    ((name, held),) = value.items()
    if name == _LIST:
        return list(map(_unpacked, held))
    if name == _MAP:
        return {key: _unpacked(item) for key, item in held.items()}
    if name in _ENUMS:
        return _ENUMS[name](held)
    return _KINDS[name](**{key: _unpacked(item) for key, item in held.items()})


def _work(output_dir: Path, name: str, first: int, end: int, only_read: set[int], task: str, out: IO[bytes]) -> None:
    plan, paths, runtime = load_plan(output_dir), RunPaths(output_dir), load_runtime(output_dir)
    spec = next(spec for spec in plan.shards() if spec.name == name)
    condemned = CrashNotes.read(paths.root, name).unreadable_for(task, runtime.data.max_crashes)
    unreadable = Unreadable(spec=spec, condemned=condemned)
    with Watchdog(runtime.data.max_batch_s / SAMPLES_PER_LIMIT) as watchdog:
        watchdog.beat()
        stage = find_stage(plan.config.stage)
        prepare, rehearse = (
            unreadable.preparing(stage.preparing(with_runtime(plan, runtime))),
            stage.rehearsal(plan, runtime),
        )
        memory.limit_this_process()
        policy = runtime.data.on_changed_input
        given_up = changes(spec, paths.root, policy) if policy == "reject" else None
        records = read_shard(plan, paths, spec, skip=first, policy=policy, given_up=given_up, unreadable=unreadable)
        for position in range(first, end):
            watchdog.beat()
            _say(out, {"begins": position})
            record = next(records)
            _say(out, {"record": to_values(record)})
            if position in only_read:
                _say(out, {"shapes": []})
            else:
                _try(record, prepare, rehearse, out, runtime.data.max_image_s * max(1, num_pictures(record)))


def _work_on_good(output_dir: Path) -> None:
    """Prepares what is known to be good, under the limits of any other record."""
    plan, runtime = load_plan(output_dir), load_runtime(output_dir)
    with Watchdog(runtime.data.max_batch_s / SAMPLES_PER_LIMIT) as watchdog:
        watchdog.beat()
        stage = find_stage(plan.config.stage)
        prepare, rehearse = stage.preparing(with_runtime(plan, runtime)), stage.rehearsal(plan, runtime)
        memory.limit_this_process()
        with tarfile.open(embedded.path(embedded.QUICKSTART)) as tar:
            good = {name.rpartition(".")[2]: _member(tar, name) for name in tar.getnames()[:2]}
        picture = ImagePart(blob=Blob(path="", data=good["png"]))
        members = tuple(Member(extension=name, blob=Blob(path="", data=data)) for name, data in good.items())
        parts = (TextPart(text=good["txt"].decode()), picture)
        record = Sample(position=0, key="good", parts=parts, members=members)
        if prepare:
            prepare(record)
        if rehearse:
            rehearse(record)


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def _try(
    record: Record, prepare: Prepare | None, rehearse: Callable[[Record], None] | None, out: IO[bytes], most_s: float
) -> None:
    try:
        with cpu_limit(most_s):
            arrays = prepare(record) if prepare else []
    except BadSample as error:
        _say(out, {"reason": str(error.reason), "message": error.message})
        return
    if rehearse:
        rehearse(record)
    _say(out, {"shapes": [list(array.shape) for array in arrays]})
    for array in arrays:
        out.write(np.ascontiguousarray(array).tobytes())
    out.flush()


def _say(out: IO[bytes], values: dict[str, Any]) -> None:
    out.write(json.dumps(values).encode() + b"\n")
    out.flush()


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the parent ends us; if it is gone, nobody reads what we write
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # the child goes first, so that the parent can tell
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    folder, name, first, end, condemned, task = sys.argv[1:]
    if not name:
        _work_on_good(Path(folder))
        return 0
    only_read = {int(position) for position in condemned.split(",") if position}
    with contextlib.suppress(BrokenPipeError):
        try:
            _work(Path(folder), name, int(first), int(end), only_read, task, out)
        except UnreadableRecord as error:
            fields = {name: getattr(error, name) for name in ("errno", "strerror", "filename")}
            _say(out, {"unreadable": error.position, **fields})
        except (UserError, OSError) as error:
            _say(out, {"error": str(error)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
