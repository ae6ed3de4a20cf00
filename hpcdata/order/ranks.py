"""Rank and world size of this process: the one place that asks torch.distributed, the environment or SLURM."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from hpcdata.base.errors import UserError


def find_rank(rank: int | None = None, world_size: int | None = None) -> tuple[int, int]:
    """(rank, world size): as given, else by the initialised process group, RANK and WORLD_SIZE, a SLURM step, or 0, 1.

    accelerate and torchrun set up the first two. Array tasks and the batch script itself are no ranks: only a step that
    `srun` started with several tasks counts.
    """
    if (rank is None) != (world_size is None):
        raise UserError("rank and world_size go together: pass both, or neither to have them detected")
    if rank is None or world_size is None:
        rank, world_size = _from_process_group() or _from_environment(os.environ) or (0, 1)
    if not 0 <= rank < world_size:
        raise UserError(f"rank {rank} of a world of {world_size}: expected 0 <= rank < world_size")
    return rank, world_size


def _from_process_group() -> tuple[int, int] | None:
    if "torch" not in sys.modules:  # never imported, so nothing is initialised
        return None
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    return distributed.get_rank(), distributed.get_world_size()


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
