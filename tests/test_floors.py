"""The lowest versions that setup.cfg allows are those that were tried.   pytest tests/test_floors.py

`bash tests/lowest.sh` tries them.
"""

from __future__ import annotations

import configparser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
BY_HAND = {"torch"}
"""See the head of constraints-lowest.txt."""


def pins(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {name.lower(): Version(version) for name, version in pairs}


def floors() -> dict[str, Version]:
    """Of what hpcdata needs, and of the extras that users install."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    text = setup["options"]["install_requires"] + extras["fast"] + extras["coco"]
    found = {}
    for item in map(Requirement, filter(None, text.splitlines())):
        (floor,) = item.specifier
        assert floor.operator == ">=", item
        found[item.name.lower()] = Version(floor.version)
    return found


def test_each_floor_is_the_version_that_was_tried() -> None:
    wanted = floors()
    assert {name: floor for name, floor in wanted.items() if name not in BY_HAND} == pins("constraints-lowest.txt")


def test_no_floor_is_above_what_is_installed_for_the_tests() -> None:
    newest = pins("constraints.txt")
    assert not {name: floor for name, floor in floors().items() if floor > newest[name]}


def test_pillow_that_opens_bombs_is_excluded() -> None:
    """13.0 refuses frames that older ones unpack; before 13.0 a YCbCr TIFF does not open."""
    assert floors()["pillow"] >= Version("13")
