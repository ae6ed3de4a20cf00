"""Putting a combined dataset in the place of an older one, so that one of them is always there."""

from __future__ import annotations

import logging
from pathlib import Path

from hpcdata.base import files, sealed
from hpcdata.base.errors import Unfinished, UserError
from hpcdata.dataset.manifest import FILE_NAME, Manifest, parse_manifest
from hpcdata.runs.plan import Plan

log = logging.getLogger(__name__)


def existing(target: Path, plan: Plan) -> Manifest | None:
    """The dataset that is there; raises UserError when the place is taken by something else."""
    path = target / FILE_NAME
    if path.exists():
        data = path.read_bytes()
        manifest = parse_manifest(data, target)
        if manifest.fingerprint != plan.fingerprint:
            raise UserError(f"{target} is the dataset of another run: choose another --output_dir")
        if (fault := sealed.fault_of(data)) is not None:
            log.warning("%s: %s; the dataset is made again of its parts and the run's shards", path, fault)
            return None
        return manifest
    if target.exists() and any(target.iterdir()):
        raise UserError(f"{target} exists and is not a dataset: choose another --output_dir")
    return None


def publish(building: Path, target: Path) -> None:
    """Puts the new dataset in place; an older one stays until then, and after it when ours is gone.

    It is gone when this process was stopped for so long that another one has taken its claim over.
    """
    retired = _retired(target)
    if target.exists():
        target.rename(retired)
    try:
        building.rename(target)
    except FileNotFoundError:
        if retired.exists() and not target.exists():
            retired.rename(target)
        raise Unfinished(f"another process has combined {target} meanwhile: run this again") from None
    files.sync_folder(target.parent)
    files.remove_folder(retired)


def recover(target: Path) -> None:
    """Undoes a replacement that was killed between its two renames."""
    retired = _retired(target)
    if retired.exists() and not target.exists():
        retired.rename(target)
    files.remove_folder(retired)
    files.empty_trash(retired.parent, retired.name)


def _retired(target: Path) -> Path:
    return target.with_name(f".{target.name}.retired")
