"""The list of attacks names tests that are there, each once.   pytest tests/test_attacks.py"""

from __future__ import annotations

import ast
from pathlib import Path

from tests.attacks import ATTACKS, KINDS, find

ROOT = Path(__file__).parent


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_each_is_there_once() -> None:
    seen: dict[str, str] = {}
    for attack in ATTACKS:
        path, _, name = attack.test.partition("::")
        assert (ROOT / path).exists(), attack.test
        names = {name} if name else functions(ROOT / path)
        assert names <= functions(ROOT / path), attack.test
        for item in names:
            assert seen.setdefault(f"{path}::{item}", attack.kind) == attack.kind, item
            assert find(f"tests/{path}::{item}[any]") == attack
    assert {attack.kind for attack in ATTACKS} == set(KINDS)
    assert find("tests/test_main.py::test_x") is None
