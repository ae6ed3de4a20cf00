"""Presets of a site or a user: YAML files in folders of their own, so that nobody edits the package.

A folder is laid out as `conf/` is: `cluster/ourlab.yaml` is what `cluster=ourlab` takes, `experiments/mine.yaml` what
`+experiments=mine` takes. Folders are named by the variable HPCDATA_CONFIG_PATH (several with `:` between them), by
`--config-dir`, or as Hydra's `hydra.searchpath=[...]`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpcdata.base.errors import UserError

VARIABLE = "HPCDATA_CONFIG_PATH"
SEARCH_PATH = "hydra.searchpath"
GROUPS = ("cluster", "experiments")


def preset_folders(given: Sequence[str] = (), *, own: Path) -> list[Path]:
    """The folders to look in, those of the command line first; `own` is hpcdata's. Raises UserError."""
    found = []
    for source, text in [*(("--config-dir", item) for item in given), *_of_environment()]:
        folder = Path(os.path.expanduser(text.removeprefix("file://"))).absolute()
        if not folder.is_dir():
            raise UserError(f"{source}={text}: there is no such folder of presets")
        for group in GROUPS:
            for path in sorted((folder / group).glob("*.yaml")):
                if (own / group / path.name).exists():
                    raise UserError(f"{path} has the name of a preset of hpcdata, {group}={path.stem}: use another")
        found.append(folder)
    return found


def split_search_path(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """(overrides without Hydra's search path, the folders in it)."""
    rest, folders = [], []
    for argument in overrides:
        key, _, text = argument.partition("=")
        if key.lstrip("+") == SEARCH_PATH:
            folders += [item.strip().strip("'\"") for item in text.strip("[] ").split(",") if item.strip()]
        else:
            rest.append(argument)
    return rest, folders


def _of_environment() -> Iterator[tuple[str, str]]:
    for text in os.environ.get(VARIABLE, "").split(os.pathsep):
        if text:
            yield VARIABLE, text
