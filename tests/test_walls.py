"""The walls between rooms: who may use whom, and which library is used where.   pytest tests/test_walls.py"""

from __future__ import annotations

import ast
import functools
import graphlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {
    "base": "",
    "embedded": "",
    "native": "",
    "net": "base",
    "samples": "base",
    "config": "base embedded",
    "media": "base samples native",
    "order": "base native",
    "shards": "base samples",
    "sources": "base samples native media order",
    "runs": "base samples config shards sources",
    "history": "base samples config shards runs",
    "encoders": "base samples embedded config media shards runs",
    "dataset": "base samples native config shards runs history encoders",
    "archives": "base samples sources runs",
    "catalogue": "base net runs archives",
    "stages": "base samples config media net sources shards runs encoders dataset multimodal formats",
    "work": "base native samples config embedded sources shards runs history stages",
    "report": "base samples config shards runs history dataset",
    "loading": "base samples native order shards dataset",
    "multimodal": (
        "base samples native embedded config media order sources runs shards catalogue dataset encoders loading report"
    ),
    "formats": "base samples config native media order sources shards runs archives catalogue encoders dataset loading",
    "cluster": (
        "base samples config embedded sources shards runs history encoders stages work dataset loading report formats"
    ),
    "jobs": "base config encoders cluster commands",
    "api": "base config runs history shards dataset work loading report cluster",
    "commands": (
        "base config order runs shards dataset stages work report loading multimodal formats archives catalogue cluster"
        " api"
    ),
}
"""Room -> the rooms that it may use. `commands` are the modules beside the rooms, which everything is typed by."""
MOST_FILES = 16
ONLY_IN = {
    "hydra": {"config.compose"},
    "omegaconf": {"config.compose"},
    "submitit": {"cluster.sbatch"},
    "accelerate": {"encoders.training.train"},
    "webdataset": {"stages.copy.tars"},
    "datasets": {"multimodal.datasets.hugging_face"},
    "wids": set(),
    "torch.distributed": {"order.ranks"},
    "argparse": {"base.command"},
    "http.client": set(),
    "PIL": {
        *(
            f"media.{name}"
            for name in (
                "colors",
                "drafts",
                "formats",
                "headers",
                "jpeg",
                "opening",
                "orientation",
                "pixels",
                "profiles",
                "kept",
                "resizing",
                "turns",
            )
        ),
        "report.preview",
        "multimodal.gallery.thumbnails",
        "dataset.decoding",  # writes small PNGs for notebooks
    },
    "simplejpeg": {"media.jpeg"},
    "pycocotools": {"sources.sets.masks"},
}
"""Library -> the modules that may import it."""


@functools.cache
def modules() -> dict[str, Path]:
    """Name below `hpcdata` -> file."""
    found = {}
    for path in [*ROOT.glob("hpcdata/**/*.py"), *ROOT.glob("jobs/*.py")]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[1:] if parts[0] == "hpcdata" else parts)
        found[name.removesuffix(".__init__").replace("__init__", "")] = path
    return found


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Full names of what a module imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def room(name: str) -> str:
    first = name.split(".")[0]
    return first if first in ROOMS else "commands"


@functools.cache
def uses(name: str) -> frozenset[str]:
    """The modules of ours that a module imports."""
    found = set()
    for imported in imports(modules()[name]):
        target = imported.removeprefix("hpcdata.") if imported.startswith("hpcdata.") else ""
        while target and target not in modules():
            target = target.rpartition(".")[0]
        found.add(target)
    return frozenset(found - {"", name})


@pytest.mark.parametrize("name", sorted(ROOMS))
def test_a_room_uses_only_what_its_line_allows(name: str) -> None:
    allowed = {name, *ROOMS[name].split()}
    for module in modules():
        if room(module) == name:
            others = {used for used in uses(module) if room(used) not in allowed}
            assert not others, (
                f"{module} imports {', '.join(sorted(others))}: {name} may use {ROOMS[name] or 'nothing'}"
            )


def test_rooms_have_no_circle_and_no_modules_import_each_other() -> None:
    tuple(graphlib.TopologicalSorter({name: uses.split() for name, uses in ROOMS.items()}).static_order())
    tuple(graphlib.TopologicalSorter({name: uses(name) for name in modules()}).static_order())


def test_beside_the_rooms_there_are_only_commands() -> None:
    for name, path in modules().items():
        if name and "." not in name and path.name != "__init__.py" and name not in ("samples", "__main__"):
            functions = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
            assert "main" in functions, f"{name} is no command: it belongs into a room"
            assert len(path.read_text().splitlines()) <= 130, f"{name}: a command is arguments in, one call, words out"


def test_a_room_is_as_large_as_one_can_overlook() -> None:
    for path in {path.parent for path in modules().values()} - {ROOT / "hpcdata"}:
        assert len([*path.glob("*.py"), *path.glob("*.c")]) <= MOST_FILES, path


def test_a_room_says_what_it_is_and_names_its_files() -> None:
    for path in modules().values():
        if path.name == "__init__.py" and path.parent not in (ROOT / "hpcdata", ROOT / "jobs"):
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
            missing = [file.stem for file in path.parent.glob("*.py") if file != path and file.stem not in text]
            assert not missing, f"{path.parent.name}/__init__.py does not name {', '.join(missing)}"


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_is_imported_in_its_place_only(library: str) -> None:
    users = {
        name
        for name, path in modules().items()
        if any(item == library or item.startswith(f"{library}.") for item in imports(path))
    }
    if library == "argparse":  # for the type of parsed options
        users = {name for name in users if "ArgumentParser" in modules()[name].read_text()}
    assert users <= ONLY_IN[library]


def test_jobs_are_thin_and_not_named_like_the_standard_library() -> None:
    for path in ROOT.glob("jobs/*.py"):
        assert len(path.read_text().splitlines()) <= 40, path.name
        assert path.stem not in sys.stdlib_module_names


def test_every_module_says_in_its_first_line_what_it_is() -> None:
    for name, path in modules().items():
        if path.read_text().strip():
            assert ast.get_docstring(ast.parse(path.read_text())), name


def test_architecture_names_every_room() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert not [name for name in ROOMS if name not in text]
