"""The state of a loader: what must be equal so that a run can go on from it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from hpcdata.base.errors import UserError

STATE_VERSION = 1
MAX_STATE_BYTES = 1024


def check_state(state: dict[str, Any], own: dict[str, Any]) -> None:
    """Raises UserError unless `state` is of the same version, data and settings as `own`."""
    if not isinstance(state, dict) or state.get("version") != STATE_VERSION:
        raise UserError("not a state of this version's TokenLoader: pass what state_dict() returned")
    for name, meaning in (("data", "content digest"), ("plan", "plan fingerprint")):
        if state.get(name) != own[name]:
            raise UserError(
                f"the loader state is of other data: {meaning} {str(state.get(name))[:16]}..., "
                f"this dataset has {own[name][:16]}...: open the dataset that the run was started with"
            )
    theirs = state.get("settings") or {}
    for name in {**own["settings"], **theirs}:
        value = own["settings"].get(name)
        if theirs.get(name) != value:
            raise UserError(
                f"the loader state was saved with {name}={theirs.get(name)!r}, this loader has {value!r}: "
                f"restore {name}, or start a new run without the state"
            )


def digest(values: dict[str, Any]) -> str:
    """32 hex digits."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()
