"""What of the configuration gets into scripts of the scheduler: checked, so that a value stays one value there.

A script is read by a shell and by sbatch. A line break in a name or value would begin a line of its own, which runs
with the rights of whoever submits. Settings may come from a file that others can write (`runtime.json` of a run), so
they are checked whenever a script is made.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from hpcdata.base.errors import UserError
from hpcdata.config.schema import RunConfig

OPTION_GROUPS = ("cluster.additional_parameters", "finish.additional_parameters")
SHELL_KEYS = ("cluster.setup", "cluster.srun_args", "cluster.wrapper")
CODE_KEYS = (*OPTION_GROUPS, *SHELL_KEYS, "cluster.python")
"""Keys that say what runs in a job, beside hpcdata itself."""
_OPTION = re.compile(r"[A-Za-z][A-Za-z0-9-]*", re.ASCII)
_BREAKS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_LOG_OPTION = re.compile(r"-[oe].*|--(?:output|error)(?:=.*)?", re.DOTALL)
_MAIL = re.compile(r"[^\s,@]+@[^\s,@]+|[\w.-]+")
_OURS = {
    "array": "use cluster.array, which sets the number of tasks",
    "output": "leave it out: the logs of a run lie in the folder logs of its output directory",
    "error": "leave it out: the logs of a run lie in the folder logs of its output directory",
    "wrap": "leave it out: what a job runs is the task of the run",
}
_TEXTS = (
    *(
        f"cluster.{name}"
        for name in ("partition", "account", "qos", "constraint", "reservation", "nodelist", "exclude")
    ),
    *("cluster.dependency", "cluster.job_name", "cluster.python", "finish.partition", "finish.mail"),
)


def check_scheduler(config: RunConfig) -> None:
    """Raises UserError for what no script may hold."""
    for key in _TEXTS:
        _require_one_line(key, _value(config, key))
    for key in OPTION_GROUPS:
        sbatch_options(key, _value(config, key))
    setup_lines(config.cluster.setup)
    _require_no_logs(words("cluster.srun_args", config.cluster.srun_args))
    words("cluster.wrapper", config.cluster.wrapper)
    if not 0 <= config.cluster.stagger_s < math.inf:
        raise UserError(f"cluster.stagger_s={config.cluster.stagger_s}: expected 0 seconds or more")
    if config.finish.mail is not None and not _MAIL.fullmatch(config.finish.mail):
        raise UserError(f"finish.mail={config.finish.mail}: expected one address, such as me@lab.org")
    if config.finish.mail and config.finish.combine is False and config.cluster.kind == "slurm":
        raise UserError("finish.mail is sent by the finishing job: leave finish.combine=false out")
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


def setup_lines(given: str | list[str] | None) -> list[str]:
    """`cluster.setup` as lines of a script. Raises UserError."""
    lines = [given] if isinstance(given, str) else list(given or ())
    for line in lines:
        _require_one_line("cluster.setup", line.replace("\t", " "))
        if line.lstrip().startswith("#SBATCH"):
            raise UserError(
                f"cluster.setup={line!r}: give options of sbatch as cluster.additional_parameters.NAME=VALUE"
            )
    return lines


def words(key: str, given: str | list[str] | None) -> list[str]:
    """Arguments of a command, of a list or of one text that is split as a shell does. Raises UserError."""
    try:
        found = shlex.split(given) if isinstance(given, str) else list(given or ())
    except ValueError as error:
        raise UserError(f"{key}={given!r}: {error}") from None
    for word in found:
        _require_one_line(key, word)
    return found


def without_container(srun_args: list[str]) -> list[str]:
    """Arguments of srun but for those of pyxis, `--container-image=...` or `--container-image ...`."""
    kept, is_value = [], False
    for word in srun_args:
        is_option = word.startswith(("--container-", "--no-container-"))
        if not is_option and not (is_value and not word.startswith("-")):
            kept.append(word)
        is_value = is_option and "=" not in word
    return kept


def code_settings(config: RunConfig) -> Iterator[tuple[str, Any]]:
    """(key, value) of each setting that has a say in what runs in a job, beside hpcdata itself."""
    for key in CODE_KEYS:
        value = _value(config, key)
        if isinstance(value, Mapping):
            yield from ((f"{key}.{name}", item) for name, item in value.items())
        elif value:
            yield key, value


def _require_no_logs(srun_args: list[str]) -> None:
    for word in srun_args:
        if _LOG_OPTION.fullmatch(word):
            raise UserError(f"cluster.srun_args: leave {word} out, as logs of a run lie in its output directory")


def _require_one_line(key: str, value: Any) -> None:
    if isinstance(value, str) and (match := _BREAKS.search(value)):
        raise UserError(
            f"{key}={value!r} has {match[0]!r} in it: a script of the scheduler takes no line breaks, control "
            "characters or bytes that are not UTF-8"
        )


def _value(config: RunConfig, key: str) -> Any:
    group, name = key.split(".")
    return getattr(getattr(config, group), name)
