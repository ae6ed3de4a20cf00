"""What of the configuration gets into scripts of the scheduler: checked, so that a value stays one value there.

A script is read by a shell and by sbatch. A line break in a name or value would begin a line of its own, which runs
with the rights of whoever submits. Settings may come from a file that others can write (`runtime.json` of a run), so
they are checked whenever a script is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from hpcdata.base.errors import UserError
from hpcdata.config.schema import RunConfig

OPTION_GROUPS = ("cluster.additional_parameters", "finish.additional_parameters")
CODE_KEYS = OPTION_GROUPS
"""Keys that say what runs in a job, beside hpcdata itself."""
_OPTION = re.compile(r"[A-Za-z][A-Za-z0-9-]*", re.ASCII)
_BREAKS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_OURS = {
    "array": "use cluster.array, which sets the number of tasks",
    "output": "leave it out: the logs of a run lie in the folder logs of its output directory",
    "error": "leave it out: the logs of a run lie in the folder logs of its output directory",
    "wrap": "leave it out: what a job runs is the task of the run",
}
_TEXTS = ("cluster.partition", "cluster.account", "cluster.qos", "cluster.constraint", "cluster.job_name")


def check_scheduler(config: RunConfig) -> None:
    """Raises UserError for what no script may hold."""
    for key in (*_TEXTS, "finish.partition"):
        _require_one_line(key, _value(config, key))
    for key in OPTION_GROUPS:
        sbatch_options(key, _value(config, key))
    preview = config.finish.preview
    if preview and (PurePath(preview).is_absolute() or ".." in PurePath(preview).parts):
        raise UserError(f"finish.preview={preview}: expected a file name in the output directory, such as preview.png")


def sbatch_options(key: str, given: Mapping[str, Any]) -> dict[str, str | bool]:
    """Options of sbatch by their long names, with hyphens; those set to false or null are left out.

    `key` is where they stand in the configuration. Raises UserError for what is no option, or is no single value.
    """
    found: dict[str, str | bool] = {}
    for name, value in given.items():
        option = str(name).replace("_", "-")
        if not _OPTION.fullmatch(option):
            raise UserError(
                f"{key}: {name!r} is not the name of an sbatch option: expected letters, digits and hyphens, such as "
                "mail-type"
            )
        if option in _OURS:
            raise UserError(f"{key}.{option}: {_OURS[option]}")
        if value is None or value is False:
            continue
        if not isinstance(value, str | int | float):
            raise UserError(f"{key}.{option}={value!r}: expected one text or number, or true for an option without one")
        _require_one_line(f"{key}.{option}", value)
        found[option] = value if value is True else str(value)
    return found


def code_settings(config: RunConfig) -> Iterator[tuple[str, Any]]:
    """(key, value) of each setting that has a say in what runs in a job, beside hpcdata itself."""
    for key in CODE_KEYS:
        value = _value(config, key)
        if isinstance(value, Mapping):
            yield from ((f"{key}.{name}", item) for name, item in value.items())
        elif value:
            yield key, value


def _require_one_line(key: str, value: Any) -> None:
    if isinstance(value, str) and (match := _BREAKS.search(value)):
        raise UserError(
            f"{key}={value!r} has {match[0]!r} in it: a script of the scheduler takes no line breaks, control "
            "characters or bytes that are not UTF-8"
        )


def _value(config: RunConfig, key: str) -> Any:
    group, name = key.split(".")
    return getattr(getattr(config, group), name)
