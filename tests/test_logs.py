"""python -m pytest tests/test_logs.py"""

import logging
import re
from collections.abc import Iterator

import pytest

from hpcdata.base import logs


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_format(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("42_7/0@node3 100%")
    logs.configure("42_7/0@node3 100%")  # again: still one line each
    logging.getLogger("hpcdata.work.task").info("shard %s: fresh", "00003-of-00064")
    logging.getLogger("hpcdata.work.task").debug("unseen")
    written = capsys.readouterr()
    assert written.out == ""
    pattern = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO \[42_7/0@node3 100%\] shard 00003-of-00064: fresh\n"
    assert re.fullmatch(pattern, written.err)


@pytest.mark.parametrize(
    ("environ", "name", "job_id"),
    [
        ({"SLURM_JOB_ID": "42"}, "42/0@", "42"),
        ({"SLURM_JOB_ID": "42", "SLURM_PROCID": "3", "SLURMD_NODENAME": "node7"}, "42/3@node7", "42"),
        # SLURM_JOB_ID of an array's last element is the id of the whole array
        (
            {"SLURM_JOB_ID": "42", "SLURM_ARRAY_JOB_ID": "42", "SLURM_ARRAY_TASK_ID": "7", "SLURM_PROCID": "0"},
            "42_7/0@",
            "42_7",
        ),
    ],
)
def test_names_under_slurm(environ: dict[str, str], name: str, job_id: str) -> None:
    assert logs.process_name(environ).startswith(name)
    assert logs.slurm_job_id(environ) == job_id


def test_name_elsewhere() -> None:
    assert re.fullmatch(r"\d+@.+", logs.process_name({}))
    assert logs.slurm_job_id({}) is None
