"""Rank and world size of this process: the one place that asks torch.distributed, the environment or SLURM.

Ranks are those of data parallelism. Peers that share a model (tensor, pipeline, context parallel) get the same batches:
a device mesh says who they are.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hpcdata.base.errors import UserError
from hpcdata.order.checking import whole

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    Mesh = DeviceMesh | tuple[int, int]

_OF_DATA = {"dp", "ddp", "fsdp", "hsdp", "data", "batch", "replicate", "shard"}
_OF_MODEL = {"tp", "pp", "cp", "sp", "tensor", "pipeline", "context", "sequence"}
"""Words of the names that dimensions of meshes and groups have, in torch and in Megatron."""


def find_rank(rank: int | None = None, world_size: int | None = None, mesh: Mesh | None = None) -> tuple[int, int]:
    """(rank, world size): as given, else by the initialised process group, RANK and WORLD_SIZE, a SLURM step, or 0, 1.

    accelerate and torchrun set up the first two. Array tasks and the batch script itself are no ranks: only a step that
    `srun` started with several tasks counts. `mesh`: a device mesh whose dimensions have names, or (rank, world size)
    among those that get different batches. Raises UserError where torch.distributed has groups of peers that share a
    model, and neither says who this is.
    """
    if mesh is not None:
        if rank is not None or world_size is not None:
            raise UserError("pass mesh, or rank and world_size, not both")
        rank, world_size = mesh if isinstance(mesh, tuple) else _from_mesh(mesh)
    if (rank is None) != (world_size is None):
        raise UserError("rank and world_size go together: pass both, or neither to have them detected")
    if rank is None or world_size is None:
        rank, world_size = _from_process_group() or _from_environment(os.environ) or (0, 1)
    rank, world_size = whole("rank", rank), whole("world_size", world_size)
    if not 0 <= rank < world_size:
        raise UserError(f"rank {rank} of a world of {world_size}: expected 0 <= rank < world_size")
    return rank, world_size


def check_rank(rank: int, world_size: int) -> None:
    """Raises UserError where `find_rank` found these before torch.distributed was set up, and would not find them now.

    Trainers that start their processes by themselves set it up late, and device meshes come later still.
    """
    found = _from_process_group()
    if found is not None and found != (rank, world_size):
        raise UserError(
            f"the loader was made as rank {rank} of {world_size}, before torch.distributed was set up; this process is "
            f"rank {found[0]} of {found[1]}: make the loader later (with Lightning, in train_dataloader), or pass rank "
            "and world_size"
        )


def check_worker(*, is_its_own: bool) -> None:
    """Raises UserError in one of several workers of torch's DataLoader, where each would deliver the same batches.

    `is_its_own`: the worker has made its loader itself, by a rank that it was given.
    """
    data = sys.modules.get("torch.utils.data")
    worker = data.get_worker_info() if data is not None else None
    if worker is not None and worker.num_workers > 1 and not is_its_own:
        raise UserError(
            f"{worker.num_workers} workers of a DataLoader loop over this loader, each would deliver all of its "
            "batches: pass StepDataset(loader) to the DataLoader (hpcdata.loading.step_dataset), or num_workers=0"
        )


def _from_process_group() -> tuple[int, int] | None:
    if "torch" not in sys.modules:  # never imported, so nothing is initialised
        return None
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    _check_groups()
    return distributed.get_rank(), distributed.get_world_size()


def _check_groups() -> None:
    """Raises UserError where some ranks share a model."""
    from torch import distributed

    world = getattr(distributed.distributed_c10d, "_world", None)
    for group in getattr(world, "pg_map", ()):
        name = str(getattr(group, "group_desc", ""))
        words = _words(name)
        if words & _OF_MODEL and not words & _OF_DATA and group.size() > 1:
            raise UserError(
                f"torch.distributed has a group {name} of {group.size()} ranks, which need the same batches: pass "
                "mesh=..., the device mesh, or rank and world_size of data parallelism"
            )


def _from_mesh(mesh: DeviceMesh) -> tuple[int, int]:
    """Among the dimensions of data, the first varies slowest."""
    rank, world_size = 0, 1
    for dimension, name in enumerate(mesh.mesh_dim_names or ["without a name"] * mesh.ndim):
        words = _words(name)
        if bool(words & _OF_DATA) == bool(words & _OF_MODEL):
            raise UserError(
                f"dimension {name!r} of the device mesh: expected a name of data ({', '.join(sorted(_OF_DATA))}) or of "
                f"a model ({', '.join(sorted(_OF_MODEL))}): pass rank and world_size of data parallelism"
            )
        if words & _OF_DATA:
            size = mesh.size(dimension)
            rank, world_size = rank * size + mesh.get_local_rank(dimension), world_size * size
    return rank, world_size


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z]+", name.lower()))


def _from_environment(environ: Mapping[str, str]) -> tuple[int, int] | None:
    for rank_name, size_name in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")):
        if rank_name in environ and size_name in environ:
            try:
                return int(environ[rank_name]), int(environ[size_name])
            except ValueError:
                raise UserError(
                    f"{rank_name}={environ[rank_name]!r}, {size_name}={environ[size_name]!r}: expected integers; "
                    "pass rank and world_size"
                ) from None
    return None
