"""What of the configuration gets into scripts of the scheduler.   pytest tests/config/test_scheduler.py"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hpcdata.base.errors import UserError
from hpcdata.config.scheduler import check_scheduler, code_settings, sbatch_options, without_container
from hpcdata.config.schema import ClusterConfig, FinishConfig, RunConfig

EVIL = "x\ntouch /tmp/owned"


@pytest.mark.parametrize(
    "key", [EVIL, "mail type", "-x", "x=1", "", "a;b", "$(id)", "ö", "mail-type\n", "comment\t", "9"]
)
def test_a_key_of_additional_parameters_is_the_name_of_an_option(key: str) -> None:
    with pytest.raises(UserError, match=r"finish\.additional_parameters: .* is not the name of an sbatch option"):
        sbatch_options("finish.additional_parameters", {key: "1"})


@pytest.mark.parametrize("value", [EVIL, "a\rb", "a\x00", "\x1b[2J", "a\x7f", "\udcff"])
def test_a_value_of_additional_parameters_stays_on_its_line(value: str) -> None:
    with pytest.raises(UserError, match=r"^cluster\.additional_parameters\.mail-user=.* takes no line breaks"):
        sbatch_options("cluster.additional_parameters", {"mail_user": value})


@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}])
def test_a_value_that_is_several_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"mail-type=.*: expected one text or number, or true"):
        sbatch_options("cluster.additional_parameters", {"mail_type": value})


def test_options_are_spelled_as_sbatch_spells_them() -> None:
    given = {"mail_type": "FAIL", "exclusive": False, "comment": None, "hold": True, "nice": 10, "time-min": 1.5}
    assert sbatch_options("k", given) == {"mail-type": "FAIL", "hold": True, "nice": "10", "time-min": "1.5"}


@pytest.mark.parametrize("option", ["array", "output", "error", "wrap"])
def test_what_a_run_sets_itself_is_refused_by_name(option: str) -> None:
    with pytest.raises(UserError, match=rf"^cluster\.additional_parameters\.{option}: (use|leave)"):
        sbatch_options("cluster.additional_parameters", {option: "x"})


@pytest.mark.parametrize("name", ["partition", "account", "qos", "constraint", "job_name"])
def test_no_text_of_the_cluster_breaks_its_line(name: str) -> None:
    config = RunConfig(cluster=dataclasses.replace(ClusterConfig(), **{name: EVIL}))
    with pytest.raises(UserError, match=rf"^cluster\.{name}='x\\ntouch"):
        check_scheduler(config)


@pytest.mark.parametrize("name", ["/etc/x.png", "../x.png", "a/../../x.png"])
def test_the_picture_at_the_end_stays_in_the_output_directory(name: str) -> None:
    with pytest.raises(UserError, match=r"finish\.preview=.*: expected a file name in the output directory"):
        check_scheduler(RunConfig(finish=FinishConfig(preview=name)))


def test_usual_settings_pass() -> None:
    cluster = ClusterConfig(partition="a,b", constraint="a100|h100", job_name="my job", account="x-y")
    check_scheduler(RunConfig(cluster=cluster, finish=FinishConfig(partition="cpu", preview="previews/a.png")))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("setup", ["a", EVIL], "cluster.setup='x"),
        ("setup", "  #SBATCH --qos=x", "give options of sbatch as cluster.additional_parameters"),
        ("srun_args", "--mpi='none", "cluster.srun_args=.*No closing quotation"),
        ("srun_args", ["--a", EVIL], "cluster.srun_args='x"),
        ("srun_args", "--output=/x", "leave --output=/x out"),
        ("srun_args", "-o /x", "leave -o out"),
        ("srun_args", "-e/x", "leave -e/x out"),
        ("wrapper", EVIL.split(" "), "cluster.wrapper='x"),
        ("python", "/bin/\n", "cluster.python="),
        ("dependency", "afterok:1\n", "cluster.dependency="),
        ("stagger_s", -1.0, "cluster.stagger_s=-1.0: expected 0 seconds or more"),
    ],
)
def test_what_no_script_may_hold_is_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_scheduler(RunConfig(cluster=dataclasses.replace(ClusterConfig(), **{name: value})))


@pytest.mark.parametrize("mail", ["a b@c.org", "a@b.org,c@d.org", "@", "a@b\n"])
def test_a_mail_goes_to_one_address(mail: str) -> None:
    with pytest.raises(UserError, match=r"finish\.mail=.*(one address|line breaks)"):
        check_scheduler(RunConfig(finish=FinishConfig(mail=mail)))


def test_a_mail_needs_the_job_that_sends_it() -> None:
    with pytest.raises(UserError, match=r"leave finish\.combine=false out"):
        check_scheduler(
            RunConfig(cluster=ClusterConfig(kind="slurm"), finish=FinishConfig(mail="a@b.org", combine=False))
        )


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["--container-image=/a", "--mpi=none"], ["--mpi=none"]),
        (["--container-image", "/a", "--mpi", "none"], ["--mpi", "none"]),
        (["--no-container-mount-home", "--container-remap-root", "-l"], ["-l"]),
        (["--export", "A=--container-image"], ["--export", "A=--container-image"]),
    ],
)
def test_what_pyxis_reads_is_taken_out(given: list[str], kept: list[str]) -> None:
    assert without_container(given) == kept


def test_what_runs_in_a_job_is_told_by_key() -> None:
    cluster = ClusterConfig(setup="a", srun_args=["b"], wrapper="c", python="d", additional_parameters={"hold": True})
    assert [key for key, _ in code_settings(RunConfig(cluster=cluster))] == [
        "cluster.additional_parameters.hold",
        *(f"cluster.{name}" for name in ("setup", "srun_args", "wrapper", "python")),
    ]
