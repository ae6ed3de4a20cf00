"""For all tests: one torch thread, and on CI a skipped test counts as a failure.

With HPCDATA_TEST_THREADS=3, that many threads share every copy and lookup of the loader, however small.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests import selection
from tests.evidence import attacked, evidence

if TYPE_CHECKING:
    from hpcdata.native.compiled import Kernels

__all__ = ["attacked", "evidence"]  # fixtures

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HYDRA_FULL_ERROR", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes would compile every module again
sys.dont_write_bytecode = False
for _name in [name for name in os.environ if name.startswith(("HPCDATA_TEXT", "HPCDATA_IMAGE", "SLURM_"))]:
    del os.environ[_name]  # the tests' own configuration must not depend on the shell

NEEDS_HARDWARE = "no GPU"
"""What a skip reason begins with when no installation could make the test run."""


def pytest_configure(config: pytest.Config) -> None:
    """The fast selection waits for no disk: what a lost power would take is for `tests/test_power_loss.py`."""
    selection.is_fast = "not slow" in config.getoption("markexpr") and not os.environ.get("HPCDATA_REQUIRE_ALL")
    if selection.is_fast:
        os.fsync = selection.only_check  # type: ignore[assignment]


def pytest_collection_finish() -> None:
    """The garbage collector need not look at thousands of tests again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> None:
    """Entry points configure logging, also in fixtures of whole modules; no test must notice."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    root.handlers[:] = [handler for handler in root.handlers if type(handler) is not logging.StreamHandler]


@pytest.fixture(scope="module")
def loops() -> Kernels:
    from hpcdata.native.compiled import kernels

    found = kernels()
    if found is None:
        pytest.skip("the compiled loops were not built: install hpcdata where there is a C compiler")
    return found


_NUM_THREADS = int(os.environ.get("HPCDATA_TEST_THREADS", "0"))


@pytest.fixture(autouse=bool(_NUM_THREADS))
def _in_threads() -> Iterator[None]:
    import torch

    from hpcdata.native.compiled import kernels

    compiled, before = kernels(), torch.get_num_threads()
    assert compiled is not None
    torch.set_num_threads(_NUM_THREADS)
    min_bytes = compiled.set_min_bytes_each(1)
    yield
    compiled.set_min_bytes_each(min_bytes)
    torch.set_num_threads(before)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if not os.environ.get("HPCDATA_REQUIRE_ALL"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # a worker of pytest-xdist, whose reports go to the process that has one
        return
    skipped = [report for report in reporter.stats.get("skipped", []) if NEEDS_HARDWARE not in str(report.longrepr)]
    if skipped:
        reporter.write_line(f"HPCDATA_REQUIRE_ALL is set and {len(skipped)} tests were skipped", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
