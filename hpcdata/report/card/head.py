"""What hubs read before the text of a card: a YAML head with licence, size and tags."""

from __future__ import annotations

import re

import yaml

from hpcdata.report.card.model import Card

_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
    (10**10, "1B<n<10B"),
    (10**11, "10B<n<100B"),
    (10**12, "100B<n<1T"),
)
_KNOWN = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "isc", "zlib"),
    *("cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0"),
    *("cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0"),
    *("cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0"),
    *("odc-by", "odbl", "pddl", "unlicense", "wtfpl", "openrail", "c-uda", "gfdl", "llama2", "llama3", "unknown"),
)
"""Names of licences that a hub knows."""
_OTHER_NAMES = {"odc-by-1.0": "odc-by", "odbl-1.0": "odbl", "pddl-1.0": "pddl", "cc0": "cc0-1.0", "cc-by": "cc-by-4.0"}


def head_of(card: Card) -> str:
    """With its lines of three hyphens."""
    about = card.about
    values: dict[str, object] = {"pretty_name": _line(about.title)}
    if about.licence:
        known = licence_of(about.licence)
        values["license"] = known or "other"
        if known is None:
            values["license_name"] = re.sub(r"[^a-z0-9.]+", "-", about.licence.lower()).strip("-")[:64] or "other"
    if about.languages:
        values["language"] = [_line(item) for item in about.languages]
    values["size_categories"] = [next((name for most, name in _SIZES if card.num_samples < most), "n>1T")]
    values["tags"] = [_line(tag) for tag in card.tags]
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---\n"


def licence_of(name: str) -> str | None:
    """As a hub calls it; None for one that it does not know."""
    lower = name.strip().lower().replace(" ", "-")
    lower = _OTHER_NAMES.get(lower, lower)
    return lower if lower in _KNOWN else None


def _line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:200]
