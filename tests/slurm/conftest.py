"""The real SLURM of the tests: one cluster a session, empty after each test.

Without the programs these tests are skipped, or fail where HPCDATA_REQUIRE_SLURM=1 says that they must run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.slurm.cluster import SlurmCluster, missing_programs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"slurm", "slurm_programs"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("slurm")
            item.add_marker("slow")


def require_slurm() -> None:
    missing = missing_programs()
    if not missing:
        return
    reason = f"{', '.join(missing)} not found: apt-get install slurm-wlm munge slurmdbd mariadb-server"
    if os.environ.get("HPCDATA_REQUIRE_SLURM") == "1":
        pytest.fail(f"HPCDATA_REQUIRE_SLURM=1, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def slurm_programs() -> None:
    """For tests that start a cluster of their own."""
    require_slurm()


@pytest.fixture(scope="session")
def slurm(slurm_programs: None) -> Iterator[SlurmCluster]:
    """A running cluster. For calls in this process take `login_node`, for subprocesses `env=slurm.env`."""
    with SlurmCluster() as cluster:
        yield cluster


@pytest.fixture
def login_node(slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    """Makes this process one on the login node: its sbatch, srun and scontrol speak with the cluster."""
    _log_in(slurm, monkeypatch)
    return slurm


@pytest.fixture
def login(own_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    """The same for the cluster that a module starts for itself, its fixture `own_cluster`: empty after each test."""
    _log_in(own_cluster, monkeypatch)
    yield own_cluster
    own_cluster.clear()


def _log_in(cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, cluster.env[name])


@pytest.fixture(autouse=True)
def _empty_cluster_afterwards(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "slurm" in request.fixturenames:
        request.getfixturevalue("slurm").clear()
