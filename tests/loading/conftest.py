"""With HPCDATA_TEST_THREADS=3, that many threads share every copy and lookup of the loader tests, however small."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from hpcdata.native.compiled import Kernels, kernels

_NUM_THREADS = int(os.environ.get("HPCDATA_TEST_THREADS", "0"))


@pytest.fixture(scope="module")
def loops() -> Kernels:
    found = kernels()
    if found is None:
        pytest.skip("the compiled loops were not built: install hpcdata where there is a C compiler")
    return found


@pytest.fixture(autouse=bool(_NUM_THREADS))
def _in_threads() -> Iterator[None]:
    compiled, before = kernels(), torch.get_num_threads()
    assert compiled is not None
    torch.set_num_threads(_NUM_THREADS)
    min_bytes = compiled.set_min_bytes_each(1)
    yield
    compiled.set_min_bytes_each(min_bytes)
    torch.set_num_threads(before)
