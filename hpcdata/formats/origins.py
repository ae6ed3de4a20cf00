"""What the records of an export came from, for its card: inputs and data sets by their names, and no path.

{"num_inputs": 2, "num_samples": 900, "inputs": [{"label": ..., "samples": ..., "size": ...}, ...],
 "sets": [{"name": ..., "licence": ..., "where": ..., "note": ...}, ...]}
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcdata.base.errors import UserError
from hpcdata.dataset.manifest import Manifest


def origins_of(manifest: Manifest) -> dict[str, Any]:
    """Those of a dataset, as its manifest and the catalogue say; empty where nothing is known."""
    inputs = manifest.named_inputs()
    try:
        sets = sets_named(manifest.folder)
    except UserError:  # an entry of one's own that is none: it is said where sets are fetched
        sets = []
    return {**(inputs if inputs["num_inputs"] else {}), **({"sets": sets} if sets else {})}


def sets_named(made: Path, names: Sequence[str] = (), folders: Sequence[str] = ()) -> list[dict[str, str]]:
    """What the catalogue knows of the sets that inputs of a run are of, and of `names`; of others the name alone.

    folders: of entries of one's own. Raises UserError.
    """
    from hpcdata.catalogue.registry import Catalogue
    from hpcdata.catalogue.settings import find_folders
    from hpcdata.catalogue.states import sets_of

    found, catalogue = [], functools.cache(lambda: Catalogue(find_folders(list(folders))))
    if folders:
        catalogue()
    for name, entry in sets_of(made, names, catalogue).items():
        if entry is None:
            found.append({"name": name, "licence": "", "where": "", "note": "not in the catalogue"})
            continue
        places = [*(f"{tree.repo} (hub)" for tree in entry.hub), *(file.url for file in entry.files[:3])]
        said = {"name": f"{entry.name}: {entry.title}", "licence": entry.licence, "where": ", ".join(places)}
        found.append({**said, "note": ""})
    return found


def with_sets(origins: Mapping[str, Any], sets: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """The sets of an export, and more that somebody names, each once."""
    held = origins.get("sets")
    known = [item for item in held if isinstance(item, dict)] if isinstance(held, list) else []
    return list({str(item.get("name")): item for item in [*known, *sets]}.values())
