"""Wheel, source archive and editable installation work from anywhere.   pytest tests/test_packaging.py"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "hpcdata", "jobs", "conf")
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
SDIST = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
USER = """
import hpcdata
reveal_type(hpcdata.TokenDataset)
reveal_type(hpcdata.run(["+experiments=quickstart"]))
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy."""
    copy = tmp_path_factory.mktemp("packaging") / "checkout"
    copy.mkdir()
    subprocess.run(["cp", "-r", *NAMES, str(copy)], cwd=ROOT, check=True)
    for built in copy.glob("hpcdata/native/*.so"):
        built.unlink()
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    subprocess.run([*PIP, "wheel", "--no-deps", "-w", str(checkout.parent), str(checkout)], check=True)
    return next(checkout.parent.glob("hpcdata-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """A folder with the wheel's content."""
    site = wheel.parent / "site"
    subprocess.run([*PIP, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    return site


@pytest.fixture(scope="module")
def editable(checkout: Path) -> Path:
    """The Python of an environment with an editable installation, which also sees all packages of this one."""
    folder = checkout.parent / "environment"
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    subprocess.run([str(python), *PIP[1:], "install", "--no-deps", "-e", str(checkout)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    others = [path for path in sys.path if path.endswith("site-packages")]
    (site / "others.pth").write_text("\n".join(others))
    return python


def run(installed: Path, cwd: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True, text=True).stdout


def test_the_wheel_holds_code_configuration_jobs_and_embedded_data(installed: Path, tmp_path: Path) -> None:
    code = "import hpcdata, hpcdata.jobs, hpcdata.conf; print(hpcdata.__file__, *hpcdata.jobs.__path__)"
    assert run(installed, tmp_path, "-c", code).split() == [
        str(installed / "hpcdata/__init__.py"),
        str(installed / "hpcdata/jobs"),
    ]
    names = ("conf/config.yaml", "conf/experiments/quickstart.yaml", "embedded/quickstart.tar", "py.typed")
    for name in (*names, "catalogue/entries/chart_qa.yaml"):
        assert (installed / "hpcdata" / name).exists(), name
    assert not (installed / "hpcdata/conf").is_symlink()
    assert (installed / "bin/hpcdata").exists()


def test_the_wheel_runs_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    overrides = ["+experiments=quickstart", "data.n_train_samples=4", "cluster=inline", "data.resolution=32"]
    output = run(installed, tmp_path, "-m", "hpcdata", "launch", *overrides)
    assert "4 inputs = 4 written" in output
    assert "usage: jobs/precompute_tokens.py" in run(installed, tmp_path, "-m", "hpcdata.jobs.precompute_tokens", "-h")


def test_without_a_compiler_there_is_a_wheel_without_compiled_loops(checkout: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "CC": "/bin/false"}
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(checkout), str(copy)], check=True)
    subprocess.run(["rm", "-rf", str(copy / "build"), str(copy / "hpcdata.egg-info")], check=True)
    subprocess.run([*PIP, "wheel", "--no-deps", "-w", str(tmp_path), str(copy)], check=True, env=environment)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as made:
        assert not [name for name in made.namelist() if name.endswith(".so")]


def test_the_source_archive_makes_the_same_wheel(checkout: Path, wheel: Path, editable: Path, tmp_path: Path) -> None:
    subprocess.run([str(editable), *PIP[1:], "install", "setuptools>=77"], check=True)
    made = subprocess.run([str(editable), "-c", SDIST, str(tmp_path)], cwd=checkout, check=True, capture_output=True)
    archive = tmp_path / made.stdout.decode().split()[-1]
    subprocess.run([*PIP, "wheel", "--no-deps", "-w", str(tmp_path), str(archive)], check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as one, zipfile.ZipFile(wheel) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())
        assert sum(name.endswith(".so") for name in one.namelist()) == 2


def test_an_editable_installation_runs_the_checkout(editable: Path, checkout: Path, tmp_path: Path) -> None:
    def out(*command: str) -> str:
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    where = out(str(editable), "-c", "import hpcdata.jobs, hpcdata.conf; print(hpcdata.__file__)")
    assert where.strip() == str(checkout / "hpcdata/__init__.py")
    assert "launch" in out(str(editable.parent / "hpcdata"), "--help")
    assert "usage: jobs/precompute_tokens.py" in out(str(editable), "-m", "hpcdata.jobs.precompute_tokens", "--help")
    assert "vq16_t2i" in out(str(editable), "-m", "hpcdata", "completion", "bash")


def test_type_checkers_see_an_editable_installation(editable: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--python-executable",
        str(editable),
        "--cache-dir",
        str(tmp_path),
        "-c",
        USER,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert '"def (path: str | pathlib.Path | hpcdata.dataset.manifest.Manifest' in done.stdout, done.stdout
    assert 'Revealed type is "hpcdata.api.running.Run"' in done.stdout
    assert done.returncode == 0
