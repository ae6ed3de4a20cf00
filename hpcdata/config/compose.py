"""Command line -> configuration: Hydra composes, our dataclasses define.

What people type in this field is accepted as it is: `+key=` for a key that exists, braces, brackets, commas and
percent signs in paths and array specifications without a second layer of quotes.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from hpcdata.base.errors import UserError
from hpcdata.base.foreign import yaml_text
from hpcdata.base.units import split_at_commas
from hpcdata.config import values as configuration
from hpcdata.config.places import PATH_KEYS, expand_paths, local_path
from hpcdata.config.presets import GROUPS, preset_folders, split_search_path
from hpcdata.config.scheduler import SHELL_KEYS
from hpcdata.config.schema import RunConfig

T = TypeVar("T")
_OVERRIDE = re.compile(r"(?P<sign>\+{0,2})(?P<key>[A-Za-z_][\w./@]*)=(?P<value>.*)", re.DOTALL)
_INTERPOLATION = re.compile(r"\$\{[^}]*[.:]")
"""`${data.raw_data_dir}`, `${oc.env:HOME}`; `${HOME}` is a variable of the shell."""
_INPUT = "data.raw_data_dir="
_HYDRA = threading.Lock()
"""Hydra composes one configuration at a time in a process."""
_OPEN = ("cluster.additional_parameters.", "finish.additional_parameters.")
"""Below these, any name is a key."""


def compose(overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> RunConfig:
    """The configuration of a command line. Raises UserError in one line: unknown keys and groups, wrong values.

    config_dirs: folders of presets, see `presets`.
    """
    overrides, search_path = split_search_path(overrides)
    _require_one_input(overrides)
    verbatim: dict[str, str | list[str] | None] = {}
    for argument in overrides:  # the last one of a key counts
        key, text = _verbatim(argument)
        verbatim[key] = text
    arguments = [normalise(argument) for argument in overrides if _verbatim(argument)[1] is None]
    values = _compose("config", arguments, [*config_dirs, *search_path])
    values.pop("experiments", None)
    for key, text in verbatim.items():
        if text is None:
            continue
        group, name = key.split(".")
        values.setdefault(group, {})[name] = text
    return expand_paths(configuration.from_mapping(values))


def compose_job(name: str, cls: type[T], overrides: Sequence[str]) -> T:
    """The values of `conf/NAME.yaml` and a command line as a dataclass. Raises UserError in one line."""
    return configuration.build(cls, _compose(name, list(overrides)))


def normalise(argument: str) -> str:
    """One override as Hydra understands it: keys of ours are set whether they exist or not, strings are quoted."""
    match = _OVERRIDE.fullmatch(argument)
    if match is None:
        raise UserError(f"{argument!r} is not an override: expected key=value, such as data.resolution=256")
    key, value = match["key"], match["value"]
    if key in GROUPS:
        if "," in value and value[:1] not in "['\"":
            raise UserError(f"{argument!r}: several are a list in brackets: {match['sign']}{key}='[{value}]'")
        return f"+{key}={value}" if key == "experiments" else f"{key}={value}"
    if _is_text(key):
        value = _quote(value, takes_list=key in configuration.list_keys())
    return f"++{key}={value}"


def override(config: RunConfig, overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> RunConfig:
    """`config` with single keys set as on a command line; Hydra reads only presets. Raises UserError."""
    overrides, search_path = split_search_path(overrides)
    values = configuration.to_mapping(config)
    for argument in overrides:
        match = _OVERRIDE.fullmatch(argument)
        if match is None or match["key"] == "experiments":
            raise UserError(f"{argument!r}: expected key=value, such as cluster.array=0-7")
        key, text = "cluster.kind" if match["key"] == "cluster" else match["key"], match["value"]
        if match["key"] == "cluster" and not (config_folder() / "cluster" / f"{text}.yaml").exists():
            values["cluster"] |= _compose("config", [f"cluster={text}"], [*config_dirs, *search_path])["cluster"]
            continue
        is_list = key in configuration.list_keys() and text.startswith("[") and text.endswith("]")
        value = text if _is_text(key) and text != "null" and not is_list else _yaml(argument, text)
        if key in PATH_KEYS and isinstance(value, str):
            value = local_path(key, value)
        *groups, name = key.split(".", 2)
        target = values
        for group in groups:
            target = target[group]
        target[name] = value
    return configuration.from_mapping(values)


def _verbatim(argument: str) -> tuple[str, str | list[str] | None]:
    """(key, the path or shell text that is taken as it is: Hydra would read braces after a dollar sign, backslashes)"""
    match = _OVERRIDE.fullmatch(argument)
    if match is None or match["key"] not in (*PATH_KEYS, *SHELL_KEYS):
        return "", None
    key, text = match["key"], match["value"]
    if key in SHELL_KEYS:
        is_list = text.startswith("[") and text.endswith("]")
        return key, None if text in ("", "null") else _yaml(argument, text) if is_list else text
    is_for_hydra = text in ("", "null") or text[0] in "'\"[" or _INTERPOLATION.search(text)
    return key, None if is_for_hydra else text


def _yaml(argument: str, text: str) -> Any:
    try:
        return yaml_text.load(text)
    except ValueError:
        raise UserError(f"{argument!r}: the value cannot be read") from None


def _is_text(key: str) -> bool:
    """Whether the key takes a string, which may look like anything. Raises UserError for an unknown key."""
    if key.startswith(_OPEN):
        return False
    types = configuration.key_types()
    if key not in types:
        raise configuration.unknown_key(key)
    return "str" in str(types[key]) and "dict" not in str(types[key])


def config_folder() -> Path:
    """The folder of YAML files: installed beside the package, or next to it in a checkout."""
    spec = importlib.util.find_spec("hpcdata.conf")
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(__file__).resolve().parent.parent.parent / "conf"


def _compose(name: str, arguments: list[str], config_dirs: Sequence[str] = ()) -> dict[str, Any]:
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    own = config_folder()
    if folders := preset_folders(config_dirs, own=own):
        listed = ",".join(_quote(f"file://{folder}", takes_list=False) for folder in folders)
        arguments = [f"hydra.searchpath=[{listed}]", *arguments]
    OmegaConf.register_new_resolver("hpcdata.embedded", _embedded, replace=True)
    try:
        with _HYDRA, hydra.initialize_config_dir(config_dir=str(own), version_base="1.3"):
            composed = hydra.compose(name, overrides=arguments)
        values: Any = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explained(error, arguments, [own, *folders])) from None
    return dict(values)


def _explained(error: Exception, arguments: Sequence[str], folders: Sequence[Path]) -> str:
    """Hydra's error in one line, in words about what was typed."""
    text = " ".join(str(error).split()).split(" Config search path:")[0]
    if match := re.search(r"Could not (?:load|find) '(\w+)/([^']*)'", text):
        group, name = match.groups()
        known = sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return f"{group}={name}: there is no such preset: {hint}there are {', '.join(known)}"
    if "override_grammar" in text:
        culprit = next((item for item in arguments if not _can_be_read(item)), arguments[-1] if arguments else "")
        key, _, value = culprit.lstrip("+").partition("=")
        return f"{key}={value}: the value cannot be read; put quotes around what has brackets, braces or commas in it"
    return text


def _can_be_read(argument: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True


def _require_one_input(overrides: Sequence[str]) -> None:
    """Refuses several values of data.raw_data_dir, which are mostly what a shell makes of braces without quotes."""
    values = [argument.partition("=")[2] for argument in overrides if argument.lstrip("+").startswith(_INPUT)]
    if len(set(values)) > 1:
        remedy = (  # what a shell makes of braces lies in one folder
            f"quote braces, as in {_INPUT}'/data/{{000..575}}.tar'"
            if len({(os.path.dirname(value), os.path.splitext(value)[1]) for value in values}) == 1
            else f"give it once; several inputs are a list: {_INPUT}'[{','.join(values[:2])}]'"
        )
        raise UserError(f"{_INPUT} is given {len(values)} times, {values[0]} and so on: {remedy}")


def _quote(value: str, *, takes_list: bool) -> str:
    """Quotes a string value, unless it is quoted, null, or a list where a list is allowed."""
    if value in ("null", "") or value[:1] in "'\"":
        return value or "''"
    if takes_list and value.startswith("["):
        return value if re.search(r"['\"]", value) or not value.endswith("]") else f"[{','.join(_elements(value))}]"
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", value)  # elsewhere a backslash stands for itself
    return "'" + escaped.replace("'", "\\'") + "'"


def _elements(value: str) -> list[str]:
    """`[a{0,1}.tar, b]` -> each element in quotes: commas in braces and round brackets separate nothing."""
    return [_quote(item.strip(), takes_list=False) for item in split_at_commas(value[1:-1]) if item.strip()]


def _embedded(name: str) -> str:
    from hpcdata import embedded

    return str(embedded.path(name))
