"""What a frozen plan and what is asked for now do not have in common, in words: a run is not continued with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcdata.config.schema import RunConfig
from hpcdata.runs.identities import ImageIdentity, TextIdentity
from hpcdata.runs.inputs.planned import PlannedInput
from hpcdata.runs.plan import Plan
from hpcdata.runs.stage import Identities, find_stage
from hpcdata.sources import InputFile
from hpcdata.sources.base import refusing_faults


def differences_from(plan: Plan, config: RunConfig, identities: Identities, listed: Sequence[InputFile]) -> list[str]:
    """Each as a line: settings, tokenizers, inputs."""
    planned, wanted = (
        find_stage(item.stage).settings(item.semantic_fields(with_added=True)) for item in (plan.config, config)
    )
    return [
        *_differences(planned, wanted, ""),
        *_root_differences(plan, config),
        *_differences(_fields(plan.text), _fields(identities.text), "text tokenizer "),
        *_differences(_fields(plan.image), _fields(identities.image), "image tokenizer "),
        *(_new_inputs if config.data.on_changed_input == "reject" else _input_differences)(plan, listed),
    ]


def _fields(identity: TextIdentity | ImageIdentity | None) -> dict[str, Any]:
    return dataclasses.asdict(identity) if identity else {}


def _differences(planned: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str) -> list[str]:
    names = [*planned, *(name for name in wanted if name not in planned)]
    return [
        f"{prefix}{name} was {planned.get(name)}, now {wanted.get(name)}"
        for name in names
        if planned.get(name) != wanted.get(name)
    ]


def _root_differences(plan: Plan, config: RunConfig) -> list[str]:
    """Where pictures are looked for is part of the plan and, as all paths, no part of the fingerprint."""
    planned, wanted = ({"data.image_root": item.data.image_root} for item in (plan.config, config))
    return _differences(planned, wanted, "")


def _input_differences(plan: Plan, listed: Sequence[InputFile]) -> list[str]:
    planned = {_part(source.origin, source.file): source for source in plan.inputs}
    limited = plan.config.data.n_train_samples is not None
    found = {_part(item.path, item): item for item in (listed[: len(plan.inputs)] if limited else listed)}
    gone = [source for part, source in planned.items() if part not in found]
    differences = _gone_and_new(gone, [item for part, item in found.items() if part not in planned])
    for part, source in planned.items():
        if part in found and _changed(source):
            differences.append(f"input {source.file.label} has changed since it was planned")
    if not differences and list(planned) != list(found):
        differences.append("the order of the inputs was another")
    return differences


def _gone_and_new(gone: Sequence[PlannedInput], new: Sequence[InputFile]) -> list[str]:
    """One of the same name in another folder was moved, or is meant in place of the other."""
    places = {item.label: item.path for item in new}
    moved = {
        source.file.label: source.origin
        for source in gone
        if places.get(source.file.label) not in (None, source.origin)
    }
    return [
        *(f"input {label} was {place}, now {places[label]}" for label, place in moved.items()),
        *(f"input {source.file.label} is gone" for source in gone if source.file.label not in moved),
        *(f"input {item.label} is new" for item in new if item.label not in moved),
    ]


def _part(path: str, file: InputFile) -> tuple[str, str, int]:
    """What of which file an input is."""
    return path, file.take, file.take_seed


def _new_inputs(plan: Plan, listed: Sequence[InputFile]) -> list[str]:
    """What a run lacks that rejects the samples of inputs which were removed or changed."""
    if plan.config.data.n_train_samples is not None:
        return []
    planned = {_part(source.origin, source.file) for source in plan.inputs}
    return [f"input {item.label} is new" for item in listed if _part(item.path, item) not in planned]


def _changed(source: PlannedInput) -> bool:
    with refusing_faults(source.origin):
        return source.changed_file(Path(source.origin).parent) is not None


def joined(differences: Sequence[str]) -> str:
    """The first five in one line, and how many more there are."""
    more = f"; and {len(differences) - 5} more" if len(differences) > 5 else ""
    return "; ".join(differences[:5]) + more
