"""Numbers as people read them.   pytest tests/base/test_units.py"""

from __future__ import annotations

import pytest

from hpcdata.base import units


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "unknown"),
        (0, "0 s"),
        (0.25, "0.2 s"),
        (9.96, "10 s"),
        (89, "89 s"),
        (90, "1.5 min"),
        (3600, "1 h 00 min"),
        (3 * 3600 + 59.6 * 60, "4 h 00 min"),
        (26 * 3600, "1 d 02 h"),
    ],
)
def test_durations(seconds: float | None, expected: str) -> None:
    assert units.duration(seconds) == expected


def test_counts_rates_and_sizes() -> None:
    assert [units.rate(number) for number in (0.1234, 12.34, 1234.5)] == ["0.12", "12.3", "1,234"]
    assert [units.size(number) for number in (0, 1023, 1536, 3 * 2**40)] == [
        "0 bytes",
        "1023 bytes",
        "1.5 KiB",
        "3.0 TiB",
    ]
    assert units.percent(0.123) == "12.3 %"


def test_foreign_text_is_one_harmless_line() -> None:
    assert units.one_line("a\nb\x1b[31m\u202e c", 20) == "a b?[31m? c"
    assert units.one_line(" a  b\t\tc ") == "a  b c"
    assert units.one_line("x" * 50, 10) == "x" * 9 + "…"
