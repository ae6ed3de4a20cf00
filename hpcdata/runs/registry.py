"""Which stages there are: the modules of `hpcdata.stages`, found by their names."""

from __future__ import annotations

import importlib
import pkgutil

from hpcdata.base.errors import UserError


def find(name: str) -> object:
    """The `STAGE` of a module of `hpcdata.stages`, see `stage`. Raises UserError where there is none."""
    if name not in names():
        raise UserError(f"stage={name}: there is no such stage, expected one of {', '.join(names())}")
    return importlib.import_module(f"hpcdata.stages.{name}").STAGE


def names() -> list[str]:
    return sorted(item.name for item in pkgutil.iter_modules(importlib.import_module("hpcdata.stages").__path__))
