"""The walls of ARCHITECTURE.md: lower layers never import upper ones.   pytest tests/test_walls.py"""

from __future__ import annotations

import ast
import functools
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = (
    (
        "errors",
        "samples",
        "columns",
        "config",
        "identities",
        "files",
        "digest",
        "logs",
        "version",
        "typed",
        "embedded",
        "clock",
        "units",
        "pagestyle",
        "watchdog",
        "livelock",
        "counts",
        "memory",
        "gpumeter",
        "forked",
    ),
    ("charts", "keys"),
    ("ledger", "claims", "tables", "sources.base"),
    ("shard",),
    ("store",),
    ("takeover",),
    ("plan",),
    ("recovered", "picking", "history", "tasks", "submissions", "outcome"),
    ("sources", "encoders", "loading", "slurm.array", "slurm.signals", "slurm.queue"),
    ("planning", "compact", "preview"),
    ("reading",),
    ("reencode",),
    ("retry",),
    ("prove",),
    ("poison", "poisonchild", "shardwork"),
    (
        "encode",
        "combine",
        "verify",
        "status",
        "summary",
        "timeline",
        "gantt",
        "codes",
        "watch",
        "page",
        "tails",
        "export",
        "index",
        "rejects",
        "replay",
    ),
    ("budget",),
    ("slurm", "local", "finish"),
    ("supervise", "cancel", "estimate"),
    ("compose",),
    ("preflight",),
    ("launch",),
    ("resume",),
    ("jobs",),
)
"""From the bottom up: a module may import its own layer and those before it."""
UPWARD_ON_PURPOSE = {("combine", "verify"), ("encode", "slurm.task"), ("logs", "tails")}
ONLY_IN = {
    "hydra": {"compose"},
    "omegaconf": {"compose"},
    "submitit": {"slurm.submit"},
    "accelerate": {"encoders.training"},
    "webdataset": set(),
    "datasets": set(),
    "wids": set(),
}


@functools.cache
def modules() -> dict[str, Path]:
    """Name below `hpcdata` -> file."""
    found = {}
    for path in [*ROOT.glob("hpcdata/**/*.py"), *ROOT.glob("jobs/*.py")]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[1:] if parts[0] == "hpcdata" else parts)
        found[name.removesuffix(".__init__").replace("__init__", "")] = path
    found.pop("", None)
    return found


@functools.cache
def imports(path: Path) -> list[str]:
    """Full names of what a module imports, also inside functions."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def layer(name: str) -> int | None:
    """The layer of the longest listed prefix."""
    while name:
        for number, names in enumerate(LAYERS):
            if name in names:
                return number
        name = name.rpartition(".")[0]
    return None


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_imports_nothing_from_a_higher_layer(name: str) -> None:
    own = layer(name)
    assert own is not None, f"{name} is in no layer: add it to LAYERS and ARCHITECTURE.md"
    for imported in imports(modules()[name]):
        if not imported.startswith("hpcdata."):
            continue
        target = imported.removeprefix("hpcdata.")
        number = layer(target)
        module = target if target in modules() else target.rpartition(".")[0]
        if number is not None and (name, module) not in UPWARD_ON_PURPOSE:
            assert number <= own, f"{name} imports {target}"


@pytest.mark.parametrize("package", sorted(ONLY_IN))
def test_a_framework_is_imported_in_its_place_only(package: str) -> None:
    users = {name for name, path in modules().items() if package in {item.split(".")[0] for item in imports(path)}}
    assert users <= ONLY_IN[package]


def test_jobs_are_thin_and_not_named_like_the_standard_library() -> None:
    for path in ROOT.glob("jobs/*.py"):
        assert len(path.read_text().splitlines()) <= 40, path.name
        assert path.stem not in sys.stdlib_module_names


def test_every_module_says_in_its_first_line_what_it_is() -> None:
    for name, path in modules().items():
        if path.read_text().strip():
            assert ast.get_docstring(ast.parse(path.read_text())), name


def test_architecture_names_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    missing = [name for name in modules() if f"{name.split('.')[-1]}" not in text]
    assert not missing
