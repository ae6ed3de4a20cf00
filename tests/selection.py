"""What the fast selection (`-m "not slow"`) does less of; `.ci/run` does all of it, whatever it selects.

`tests/conftest.py` says which it is before test modules are imported.
"""

from __future__ import annotations

import os

is_fast = False


def examples(number: int) -> int:
    """So many examples of a property, a fifth in the fast selection: for those that take a tenth of a second."""
    return max(number // 5, 3) if is_fast else number


def only_check(descriptor: int) -> None:
    """In place of `os.fsync`. Raises OSError for what is no open file."""
    os.fstat(descriptor)
