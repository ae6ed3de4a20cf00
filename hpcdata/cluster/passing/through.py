"""One run from its plan to the folder that its stage arranges; its own folder goes when all is done.

Where it fails or is stopped, the folder stays, and the same call goes on. `cluster=slurm` submits an array instead: the
finishing job arranges, and the folder stays.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from hpcdata.base import files
from hpcdata.base.command import DONE
from hpcdata.cluster import launching
from hpcdata.cluster.launching import Launched
from hpcdata.cluster.sbatch import MISREAD
from hpcdata.config.schema import RunConfig
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.dataset.manifest import Manifest
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.stage import Finds, find_stage
from hpcdata.shards.counts import Counts

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Passed:
    launched: Launched | None = None
    """None where all was there already."""
    target: Path | None = None
    """What was arranged. None where tasks are elsewhere, or not all is done."""
    counts: Counts = field(default_factory=Counts)
    """The account of it."""
    made: Manifest | None = None
    """The dataset of the run, whose folder is there with `keep` alone."""


def run_beside(out: str | Path) -> Path:
    """The folder of a run that makes `out`: `OUT.run`, but for letters that SLURM misreads in the names of logs."""
    path = Path(out).absolute()
    name = MISREAD.sub("_", path.name)
    if name != path.name:  # so that two names stay two
        name += f"-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]}"
    return path.with_name(f"{name}.run")


def run_through(config: RunConfig, *, keep: bool = False) -> Passed:
    """Here, or where `cluster=` says. keep: the run's folder stays in any case. Raises UserError."""
    run, stage = Path(config.data.token_output_dir).absolute(), find_stage(config.stage)
    if not run.exists() and isinstance(stage, Finds) and (found := stage.find(config)):
        log.info("%s holds this already", found[0])
        return Passed(target=found[0], counts=found[1])
    is_new = not run.exists()
    is_here = config.cluster.kind != "slurm"
    if is_here:  # combined below, without reading all back: `hpcdata verify` does
        config = dataclasses.replace(config, finish=dataclasses.replace(config.finish, combine=False))
    try:
        launched = launching.launch(config)
    except BaseException:
        if is_new and run.exists() and not RunPaths(run).plan.exists():
            files.remove_folder(run)
        raise
    if not is_here or launched.exit_code != DONE:
        return Passed(launched=launched)
    made = combine(run, CombineOptions())
    if not keep:
        files.remove_folder(run)
    return Passed(launched=launched, target=made.target, counts=made.counts, made=made)
