"""Presets of a site or a user, and keys that hold shell texts.   pytest tests/config/test_presets.py"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hpcdata import launch
from hpcdata.base.errors import UserError
from hpcdata.config.compose import compose, override
from hpcdata.config.schema import RunConfig

PATHS = ["data.raw_data_dir=/in", "data.token_output_dir=/out"]
LAB = """\
defaults: [slurm]
partition: [gpu, preempt]
account: vision
setup:
  - module load cuda/12
  - export DATA=$HOME/data
additional_parameters:
  mail_type: FAIL
"""
MINE = "# @package _global_\ndata:\n  shard_size: 100\n"


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    folder = tmp_path / "our lab's presets"
    for name, text in {"cluster/ourlab": LAB, "experiments/mine": MINE}.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def require_lab(config: RunConfig) -> None:
    assert (config.cluster.kind, config.cluster.partition, config.cluster.account) == ("slurm", "gpu,preempt", "vision")
    assert config.cluster.setup == ["module load cuda/12", "export DATA=$HOME/data"]
    assert config.cluster.additional_parameters == {"mail_type": "FAIL"}


def test_a_folder_in_the_environment_holds_presets(lab: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("HPCDATA_CONFIG_PATH", f"{tmp_path / 'empty'}{os.pathsep}{lab}")
    config = compose([*PATHS, "cluster=ourlab", "+experiments=[tokenize,mine]"])
    require_lab(config)
    assert config.data.shard_size == 100
    assert config.data.block_size == 256


def test_a_folder_on_the_command_line_does(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require_lab(compose([*PATHS, "cluster=ourlab"], [str(lab)]))
    assert launch.main(["--cfg", "--config-dir", str(lab), *PATHS, "cluster=ourlab", "cluster.account=nlp"]) == 0
    assert json.loads(capsys.readouterr().out)["cluster"]["account"] == "nlp"


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_so_does_hydras_own_search_path(prefix: str, lab: Path) -> None:
    simple = lab.rename(lab.parent / "lab")
    require_lab(compose([*PATHS, "cluster=ourlab", f"hydra.searchpath=[{prefix}{simple}]"]))


def test_resume_takes_a_preset(lab: Path) -> None:
    config = compose([*PATHS, "cluster=local", "data.resolution=64"])
    changed = override(config, ["cluster=ourlab", "cluster.array=0-3"], [str(lab)])
    require_lab(changed)
    assert (changed.data.resolution, changed.cluster.array) == (64, "0-3")
    assert override(config, ["cluster=slurm"]).cluster.kind == "slurm"


def test_a_preset_that_is_not_there_is_named_with_those_that_are(lab: Path) -> None:
    with pytest.raises(UserError, match=r"cluster=ourlap: there is no such preset: .*inline, local, ourlab, slurm"):
        compose([*PATHS, "cluster=ourlap"], [str(lab)])


def test_a_folder_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCDATA_CONFIG_PATH", "/not/there")
    with pytest.raises(UserError, match=r"^HPCDATA_CONFIG_PATH=/not/there: there is no such folder of presets"):
        compose(PATHS)


def test_a_preset_that_would_never_be_found_is_refused(lab: Path) -> None:
    (lab / "cluster/slurm.yaml").write_text("kind: slurm\n")
    with pytest.raises(UserError, match=r"slurm\.yaml has the name of a preset of hpcdata, cluster=slurm: use another"):
        compose(PATHS, [str(lab)])


@pytest.mark.parametrize(
    "text",
    [
        "export A=${HOME}/x B='c d'",
        "[ -d /lab ] && source /lab/env.sh",
        "echo {a,b} \\t $(date) # no, really",
        "module load cuda/12.1",
    ],
)
def test_shell_texts_arrive_as_they_were_typed(text: str) -> None:
    for config in (compose([*PATHS, f"cluster.setup={text}"]), override(compose(PATHS), [f"cluster.setup={text}"])):
        assert config.cluster.setup == text


@pytest.mark.parametrize(
    ("argument", "name", "value"),
    [
        ("cluster.setup=[module load a, 'export A=1, 2']", "setup", ["module load a", "export A=1, 2"]),
        ("cluster.srun_args=[--mpi=none, --container-image=/a/b.sqsh]", "srun_args", None),
        ("cluster.partition=[a, b]", "partition", "a,b"),
        ("cluster.partition=a,b", "partition", "a,b"),
        ("cluster.exclude=node[3-5],node9", "exclude", "node[3-5],node9"),
        ("cluster.setup=null", "setup", None),
    ],
)
def test_lists_are_typed_in_brackets(argument: str, name: str, value: object) -> None:
    for config in (compose([*PATHS, argument]), override(compose(PATHS), [argument])):
        found = getattr(config.cluster, name)
        assert found == (value if name != "srun_args" else ["--mpi=none", "--container-image=/a/b.sqsh"])
