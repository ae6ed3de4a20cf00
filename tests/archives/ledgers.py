"""The account of an archive's members, as a value."""

from __future__ import annotations

import csv
from pathlib import Path


def results_of(path: Path) -> dict[str, str]:
    """Member -> what became of it."""
    with open(path, newline="") as file:
        return {line["member"]: line["result"] for line in csv.DictReader(file) if line["number"] != "-1"}
