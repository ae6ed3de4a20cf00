"""Whose files a run consists of: whoever may write its folder has a say in what its jobs run.

`runtime.json` holds options of sbatch that the next submission uses. One that another user wrote is not obeyed in
them unless they are typed again; what else belongs to others is said.
"""

from __future__ import annotations

import os
import pwd
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path

from hpcdata.base.command import to_type
from hpcdata.base.errors import UserError
from hpcdata.config.scheduler import code_settings
from hpcdata.config.schema import RunConfig
from hpcdata.runs.paths import RunPaths

_TRUSTED = (0,)
"""root may do all that this could prevent."""


def require_own_settings(paths: RunPaths, config: RunConfig, typed: Sequence[str] = ()) -> None:
    """Raises UserError when another user wrote the settings of this run that say what runs in its jobs.

    typed: overrides of this command line; what is named there is the user's own.
    """
    owner = _other_owner(paths.runtime)
    if owner is None:
        return
    keys = [item.lstrip("+").partition("=")[0] for item in typed]
    for key, value in code_settings(config):
        if not any(key == name or key.startswith(f"{name}.") for name in keys):
            raise UserError(
                f"{paths.runtime} was written by {owner}, and says {key}={value!r}, which would run in your name: give "
                f"it yourself if it is right: {to_type('resume', paths.root, f'{key}={value}')}"
            )


def describe_risks(paths: RunPaths) -> list[str]:
    """A line for each thing that lets others decide what happens in this run."""
    lines = []
    try:
        mode = paths.root.stat().st_mode
        entries = sorted(os.scandir(paths.root), key=lambda entry: entry.name)
    except OSError:
        return []
    if mode & stat.S_IWOTH:
        lines.append(
            f"{paths.root} can be written by everybody (mode {stat.S_IMODE(mode):o}), who can so change what this run "
            f"does: chmod o-w {shlex.quote(str(paths.root))}"
        )
    foreign = [(entry.name, owner) for entry in entries if (owner := _other_owner(Path(entry.path)))]
    if foreign:
        named = ", ".join(f"{name} ({owner})" for name, owner in foreign[:5])
        more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
        lines.append(f"files of this run belong to other users, and are used as they are: {named}{more}")
    return lines


def _other_owner(path: Path) -> str | None:
    """Who owns a file, if that is neither this user nor root."""
    try:
        uid = path.lstat().st_uid
    except OSError:
        return None
    if uid in (*_TRUSTED, os.geteuid()):
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
