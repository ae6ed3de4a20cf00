"""The wheel works from anywhere, with conf/ and jobs/ inside.   pytest tests/test_packaging.py"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, made from a clean copy of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "checkout"
    copy.mkdir()
    names = ["setup.cfg", "pyproject.toml", "README.md", "LICENSE", "hpcdata", "jobs", "conf"]
    subprocess.run(["cp", "-r", *names, str(copy)], cwd=ROOT, check=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(folder), str(copy)], check=True)
    wheel = next(folder.glob("hpcdata-*.whl"))
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


def run(installed: Path, cwd: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_the_wheel_holds_code_configuration_jobs_and_embedded_data(installed: Path, tmp_path: Path) -> None:
    code = "import hpcdata, hpcdata.jobs, hpcdata.conf; print(hpcdata.__file__, *hpcdata.jobs.__path__)"
    assert run(installed, tmp_path, "-c", code).split() == [
        str(installed / "hpcdata/__init__.py"),
        str(installed / "hpcdata/jobs"),
    ]
    for name in ("conf/config.yaml", "conf/experiments/quickstart.yaml", "embedded/quickstart.tar", "py.typed"):
        assert (installed / "hpcdata" / name).exists(), name


@pytest.mark.slow
def test_the_wheel_runs_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    overrides = ["+experiments=quickstart", "data.n_train_samples=4", "cluster=inline", "data.resolution=32"]
    output = run(installed, tmp_path, "-m", "hpcdata.launch", *overrides)
    assert "4 inputs = 4 written" in output
    assert "precompute_tokens" not in run(installed, tmp_path, "-m", "hpcdata.jobs.precompute_tokens", "--help")[:5]
