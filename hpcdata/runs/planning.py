"""From a configuration to a plan: checks everything that can be checked before work starts, then freezes it.

    python -m hpcdata.launch ...

All of it runs on the login node without torch. Resuming compares the configuration and the inputs with the plan that
is there: a semantic difference is refused and named, a transient one is fine. A plan with nothing written gives way.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hpcdata import sources
from hpcdata.base import files, sealed, units
from hpcdata.base.command import to_type
from hpcdata.base.errors import UserError
from hpcdata.base.reads import naming
from hpcdata.base.version import code_version
from hpcdata.config import values as configuration
from hpcdata.config.array import parse_array
from hpcdata.config.numbers import check_numbers
from hpcdata.config.scheduler import check_scheduler
from hpcdata.config.schema import RunConfig
from hpcdata.runs import replacing, witnesses
from hpcdata.runs.claims import Claims, Owner
from hpcdata.runs.differences import differences_from, joined
from hpcdata.runs.inputs.pictures import require_pictures
from hpcdata.runs.inputs.scanning import plan_inputs
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan, load_plan
from hpcdata.runs.stage import Identities, find_stage
from hpcdata.sources import InputFile
from hpcdata.sources.account import describe, is_worth_a_warning
from hpcdata.sources.custom.mapping import read_mapping
from hpcdata.sources.sets.settings import settings_line

log = logging.getLogger(__name__)


def prepare(config: RunConfig, *, in_use: Callable[[], str | None] = lambda: None) -> Plan:
    """The frozen plan of `config`, made now or by an earlier launch. Raises UserError for anything that cannot run.

    Any number of processes may call it at once for one output directory: one makes the plan, the others wait. An
    earlier plan with other settings is replaced while nothing is written, no task is at work, and nothing that the
    caller knows of, such as jobs in the queue, says that it is `in_use`.
    """
    stage = find_stage(config.stage)
    config = with_mapping(_with_absolute_root(stage.settle(config)))
    paths = RunPaths(Path(config.data.token_output_dir).absolute())
    identities = check(config)
    earlier = load_plan(paths.root) if paths.plan.exists() else None
    listed = _list_inputs(paths, config, earlier)
    stage.check_inputs(config, listed)
    _make_root(paths)
    if earlier and (differences := differences_from(earlier, config, identities, listed)):
        _require_replaceable(paths, config, differences, in_use)
        log.warning("nothing is written yet: the plan of %s is replaced, as %s", paths.root, joined(differences))
        listed = _list_inputs(paths, config, None)
        plan = _create_together(paths, config, identities, listed, instead_of=earlier)
    else:
        plan = earlier or _create_together(paths, config, identities, listed)
    write_runtime(paths, config)
    return plan


def reopen(output_dir: Path, config: RunConfig) -> Plan:
    """The plan of a run that goes on with `config`. Raises UserError where that would not write the same bytes.

    All of it comes from the run itself: nothing is listed or scanned again, and it may be called from any folder.
    """
    config, paths = find_stage(config.stage).settle(config), RunPaths(output_dir.absolute())
    plan = load_plan(paths.root)
    identities = check(config)
    there = [source for source in plan.inputs if Path(source.origin).exists()]
    listed = [dataclasses.replace(source.file, path=source.origin) for source in there]
    _require_same(plan, config, identities, listed)
    _make_root(paths)
    write_runtime(paths, config)
    return plan


def write_runtime(paths: RunPaths, config: RunConfig) -> None:
    """Keeps the transient settings for the run's tasks, with paths that mean the same from everywhere."""

    def absolute(path: str | None) -> str | None:
        return str(Path(path).absolute()) if path and Path(path).exists() else path

    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, token_output_dir=str(paths.root)),
        text=dataclasses.replace(config.text, tokenizer=absolute(config.text.tokenizer)),
        image=dataclasses.replace(config.image, checkpoint=absolute(config.image.checkpoint)),
    )
    files.write_atomic(paths.runtime, sealed.to_json(configuration.to_mapping(config)))


def check(config: RunConfig) -> Identities:
    """Checks values against each other and against the files that they name. Raises UserError."""
    check_numbers(config)
    if config.estimate:
        raise UserError("estimate=true: only python -m hpcdata.launch makes estimates")
    parse_array(config.cluster.array)
    check_scheduler(config)
    return find_stage(config.stage).identify(config)


def with_mapping(config: RunConfig) -> RunConfig:
    """With what `data.mapping` says, as it stands in the plan. Raises UserError."""
    path = config.data.mapping
    if path is None:
        return config
    return dataclasses.replace(config, data=dataclasses.replace(config.data, mapped_by=read_mapping(path)))


def _with_absolute_root(config: RunConfig) -> RunConfig:
    root = config.data.image_root and os.path.abspath(config.data.image_root)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, image_root=root))


def _list_inputs(paths: RunPaths, config: RunConfig, plan: Plan | None) -> list[InputFile]:
    """The inputs; those of the plan where some are gone by now and their samples are to be rejected."""
    try:
        return sources.list_inputs(
            config.data.raw_data_dir,
            config.data.source,
            without=str(paths.root),
            image_root=config.data.image_root,
            allows_outside=config.data.outside_images == "read",
            as_older=plan is not None and plan.found is None,
            listed=None if plan is None else {item.origin for item in plan.inputs if item.vouches},
            seed=config.data.seed,
            mapping=config.data.mapped_by or "",
            made=settings_line(config.data.tasks, config.data.coordinates),
        )
    except UserError:
        if config.data.on_changed_input != "reject" or plan is None:
            raise
        if plan.config.data.raw_data_dir != config.data.raw_data_dir:
            raise
        return [dataclasses.replace(item.file, path=item.origin) for item in plan.inputs]


def _make_root(paths: RunPaths) -> None:
    try:
        with naming(paths.root):
            paths.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in files.NO_ROOM:  # nothing is wrong with the path
            raise
        raise UserError(f"data.token_output_dir={paths.root} cannot be made: {error.strerror}") from None
    if not os.access(paths.root, os.W_OK | os.X_OK):
        raise UserError(f"data.token_output_dir={paths.root} is not writable")
    if paths.shards.exists() and not paths.plan.exists():
        raise UserError(f"{paths.root} has shards but no plan.json: restore it, or use a new output directory")


def _create_together(
    paths: RunPaths,
    config: RunConfig,
    identities: Identities,
    listed: Sequence[InputFile],
    *,
    instead_of: Plan | None = None,
) -> Plan:
    """One process builds the plan, under a claim; exclusive creation decides if two do after all."""

    def is_made() -> bool:
        if instead_of is None or not paths.plan.exists():
            return paths.plan.exists()
        return replacing.read_fingerprint(paths.plan) != instead_of.fingerprint

    owner = Owner.of_this_process(f"plan-{os.getpid()}-{time.time_ns()}")
    with Claims(paths.claims, owner, timeout_s=config.cluster.claim_timeout_s) as claims:
        while not claims.try_claim("plan"):
            if is_made():
                break
            time.sleep(0.2)
        if not is_made():
            inputs = plan_inputs(paths, config, listed)
            options = find_stage(config.stage).options(config)
            if config.image.tokenizer is not None and options.needs_image:
                require_pictures(paths.root, inputs, options)
            text, image = identities.text, identities.image
            found, not_read = sources.find_account(config.data.raw_data_dir, listed, str(paths.root))
            if found.files:
                log.log(
                    logging.WARNING if is_worth_a_warning(not_read) else logging.INFO, "%s", describe(found, not_read)
                )
            plan = Plan(
                config=config,
                text=text,
                image=image,
                inputs=inputs,
                code_version=code_version(),
                joins_inputs=len(inputs) > 1,
                found=found,
                not_read=not_read,
                witnesses=witnesses.find(paths.root, inputs, options),
            )
            _require_samples(plan)
            if instead_of is None:
                files.create_exclusive(paths.plan, plan.to_json())
            else:
                _require_replaceable(paths, config, ["it has begun meanwhile"])
                replacing.clear(paths)
                files.write_atomic(paths.plan, plan.to_json())
    plan = load_plan(paths.root)
    _require_same(plan, config, identities, listed)
    return plan


def _require_samples(plan: Plan) -> None:
    if not plan.num_samples:
        found = units.counted(len(plan.inputs), "file")
        raise UserError(f"data.raw_data_dir={plan.config.data.raw_data_dir}: {found} without a sample")


def _require_replaceable(
    paths: RunPaths, config: RunConfig, differences: Sequence[str], in_use: Callable[[], str | None] = lambda: None
) -> None:
    """Raises UserError unless the plan may give way to one with these differences."""
    if not replacing.is_nothing_written(paths):
        raise _other_settings(config, differences, "restore them, or use a new data.token_output_dir")
    users = in_use() or ("tasks are at work" if _has_tasks(paths, config) else None)
    if users:
        remedy = f"nothing is written yet, so end what works with them ({users}) and launch again"
        raise _other_settings(config, differences, f"{remedy}: {to_type('cancel', paths.root)}")


def _has_tasks(paths: RunPaths, config: RunConfig) -> bool:
    return replacing.tasks_at_work(paths, config.cluster.claim_timeout_s)


def _require_same(plan: Plan, config: RunConfig, identities: Identities, listed: Sequence[InputFile]) -> None:
    """Raises UserError naming every difference between the frozen plan and what is asked for now."""
    if differences := differences_from(plan, config, identities, listed):
        raise _other_settings(config, differences, "restore them, or use a new data.token_output_dir")


def _other_settings(config: RunConfig, differences: Sequence[str], remedy: str) -> UserError:
    where = config.data.token_output_dir
    return UserError(f"{where} holds a run with other settings or inputs: {joined(differences)}: {remedy}")
