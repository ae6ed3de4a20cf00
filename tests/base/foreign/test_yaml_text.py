"""YAML that others wrote.   pytest tests/base/foreign/test_yaml_text.py"""

from __future__ import annotations

import pytest
import yaml

from hpcdata.base.foreign import yaml_text

BOMB = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 10)}]\n" for n in range(12))
LOADERS = [yaml.SafeLoader, yaml.CSafeLoader]


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "line 6: its aliases count, and it has more than 1048576 values"),
        ("a: &a [*a]", "line 1: an alias stands in what it is an alias of"),
        ("[" * 200_000, "it has more than 100 levels|it is nested too deep"),
        ("- " * 200_000, "it has more than 100 levels|it is nested too deep"),
        ("{a: " * 200 + "}" * 200, "it has more than 100 levels|it is nested too deep"),
        (f"a: {'9' * 5000}", "a value in it cannot be read: .*digits"),
        ("a: 2001-99-99", "a value in it cannot be read: month must be in 1..12"),
        ("!!bool x", "a value in it cannot be read"),
        ("!!int ''", "a value in it cannot be read"),
        ("!!timestamp x", "a value in it cannot be read"),
        ("!!python/object:os.system x", "could not determine a constructor"),
        ("a: [", "expected"),
        ("\0", "not allowed"),
    ],
)
def test_what_takes_the_machine_or_is_no_value_is_an_error_of_one_line(
    text: str, said: str, loader: type[yaml.SafeLoader]
) -> None:
    with pytest.raises(ValueError, match=said) as error:
        yaml_text.load(text, loader)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", None),
        ("a: &a [1, 2]\nb: *a", {"a": [1, 2], "b": [1, 2]}),
        ("a: &a {x: 1}\nb: {<<: *a, y: 2}", {"a": {"x": 1}, "b": {"x": 1, "y": 2}}),
        ("[" * 50 + "]" * 50, None),
        ("- a: b\n" * 3000, [{"a": "b"}] * 3000),
    ],
)
def test_all_else_is_read_as_ever(text: str, values: object, loader: type[yaml.SafeLoader]) -> None:
    assert yaml_text.load(text, loader) == (yaml.safe_load(text) if values is None else values)
