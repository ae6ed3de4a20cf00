"""Paths as people type them: `~` and `$VAR` are expanded once, before a run is planned; what is not local is refused.

From then on the paths in plan.json and runtime.json mean the same to every task, whatever its environment is.
"""

from __future__ import annotations

import dataclasses
import re

from hpcdata.base import units
from hpcdata.base.errors import UserError
from hpcdata.config.schema import RunConfig

PATH_KEYS = (
    *("data.raw_data_dir", "data.image_root", "data.mapping", "data.token_output_dir"),
    *("text.tokenizer", "image.checkpoint", "convert.out", "export.out"),
)
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def expand_paths(config: RunConfig) -> RunConfig:
    """The configuration with every path of `PATH_KEYS` expanded. Raises UserError."""
    for key in PATH_KEYS:
        group, name = key.split(".")
        values = getattr(config, group)
        changed = dataclasses.replace(values, **{name: _expanded(key, getattr(values, name))})
        config = dataclasses.replace(config, **{group: changed})
    return config


def local_path(key: str, text: str) -> str:
    """One path as typed -> a local path. Raises UserError: another place, a variable or user that is not there."""
    if _REMOTE.match(text):
        raise UserError(
            f"{key}={text} is remote, and only local paths can be used: mount it, or copy it, and give the local path"
        )
    return units.local_path(text, f"{key}={text}")


def _expanded(key: str, value: str | list[str] | None) -> str | list[str] | None:
    if value is None:
        return None
    return local_path(key, value) if isinstance(value, str) else [local_path(key, item) for item in value]
