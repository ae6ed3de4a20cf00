"""What of the configuration gets into scripts of the scheduler.   pytest tests/config/test_scheduler.py"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hpcdata.base.errors import UserError
from hpcdata.config.scheduler import check_scheduler, sbatch_options
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
