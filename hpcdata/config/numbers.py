"""Numbers of the configuration, checked against their limits and against each other."""

from __future__ import annotations

import math

from hpcdata.base.errors import UserError
from hpcdata.config.schema import RunConfig


def check_numbers(config: RunConfig) -> None:
    """Raises UserError for one that nothing could be done with."""
    positive = {
        "data.resolution": config.data.resolution,
        "data.shard_size": config.data.shard_size,
        "data.block_size": config.data.block_size,
        "data.n_train_samples": config.data.n_train_samples,
        "data.save_tmp_interval": config.data.save_tmp_interval,
        "data.max_batch_s": config.data.max_batch_s,
        "data.max_image_s": config.data.max_image_s,
        "data.max_image_pixels": config.data.max_image_pixels,
        "data.max_record_bytes": config.data.max_record_bytes,
        "loader.batch_size": None if config.loader.batch_size == "auto" else config.loader.batch_size,
        "image.cpu_threads": config.image.cpu_threads,
        "cluster.claim_timeout_s": config.cluster.claim_timeout_s,
    }
    for name, value in positive.items():
        if value is not None and value <= 0:
            raise UserError(f"{name}={value}: expected a number above 0")
    ratio = config.data.max_aspect_ratio
    if ratio is not None and not 1 <= ratio < math.inf:
        raise UserError(f"data.max_aspect_ratio={ratio}: expected 1 or more, longer side by shorter side")
    if ratio is not None and config.data.sizes is not None:
        raise UserError("data.max_aspect_ratio and data.sizes both say which sizes there are: leave one of them out")
    if config.data.keeps_shapes and config.image.compile:
        found = "data.sizes" if ratio is None else "data.max_aspect_ratio"
        raise UserError(f"image.compile=true needs pictures of one size: leave it, or {found}, out")
    limit = config.data.max_aspect
    if limit is not None and not 1 <= limit < math.inf:
        raise UserError(f"data.max_aspect={limit}: expected 1 or more, longer side by shorter side")
    share = config.data.max_rejected
    if share is not None and not 0 <= share <= 1:
        raise UserError(f"data.max_rejected={share}: expected a share of the inputs, 0 to 1")
    if config.loader.batches_ahead < 1:
        raise UserError(f"loader.batches_ahead={config.loader.batches_ahead}: expected 1 or more")
    if config.loader.num_workers < 0:
        raise UserError(f"loader.num_workers={config.loader.num_workers}: expected 0 or more")
