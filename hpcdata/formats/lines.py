"""Lines of `hpcdata export` and `hpcdata convert` that contradict themselves: refused before anything is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcdata.base.errors import UserError

_SAID = {
    *("stage", "data.raw_data_dir", "data.token_output_dir"),
    *("export.out", "export.format", "copy.format", "convert.out", "convert.form"),
}
"""Keys of a launch that such a line says in its own words."""
_OF_SETS = {"mapping", "root_name", "set", "write_incomplete"}
_OF_FORMS = {
    "llava-parquet": {"name", "run_dir", "overrides"},
    "relink": _OF_SETS,
    "sets": {*_OF_SETS, "overrides"},
    "mix": {"write_incomplete"},
}


def require_options_of(form: str, given: Mapping[str, Any]) -> None:
    """Raises UserError for what another form of `hpcdata convert` takes: it would be left out in silence."""
    for name in sorted(set().union(*_OF_FORMS.values()) - _OF_FORMS[form]):
        if value := given.get(name):
            said = value[0] if name == "overrides" else f"--{name.replace('_', '-')}"
            raise UserError(f"{said} has no meaning for convert {form}")


def require_sense(out: str | Path, overrides: Sequence[str], *, run: str | Path | None, dataset: str = "") -> None:
    """run: the working folder that is asked for. Raises UserError."""
    for item in overrides:
        if item.lstrip("+").partition("=")[0] in _SAID:
            raise UserError(f"{item}: the line says that by its own words, see --help")
    out = Path(out).absolute()
    if dataset and (place := Path(dataset).resolve()) in (out, *out.parents):
        is_in = "is" if out == place else "lies in"
        raise UserError(f"{out} {is_in} {dataset}, which holds a dataset and nothing else: name another OUT")
    if run is not None and out in (place := Path(run).absolute(), *place.parents):
        raise UserError(f"{run}, the folder of the run, lies in {out}, which is made at once when all is done")


def require_place(dataset: str, out: str | None, format_name: str) -> None:
    """For scripts that make the dataset first. Raises UserError where it could not be exported to `out` then."""
    from hpcdata.formats.arranging import require_free

    if out is not None:
        require_sense(out, (), run=None, dataset=dataset)
        require_free(Path(out).absolute(), format_name)
