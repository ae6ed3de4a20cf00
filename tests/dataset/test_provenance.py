"""A manifest says what a dataset was made of and how, and verify proves it again.

pytest tests/dataset/test_provenance.py
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hpcdata import embedded
from hpcdata.base.version import code_version
from hpcdata.dataset import verifying as verify
from hpcdata.dataset.combining import CombineOptions, combine
from tests import made
from tests.smallruns import small_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("provenance")
    shutil.copy2(embedded.path("quickstart.tar"), folder / "in.tar")
    small_run(folder / "run", source=folder / "in.tar")
    combine(folder / "run", CombineOptions())
    return folder / "run"


def read(run: Path) -> dict[str, Any]:
    return json.loads((run / "dataset/manifest.json").read_bytes())  # type: ignore[no-any-return]


def sha256(path: Path | str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_the_inputs(finished: Path) -> None:
    source = finished.parent / "in.tar"
    (entry,) = read(finished)["inputs"]
    status = source.stat()
    assert (entry["path"], entry["label"], entry["samples"]) == (str(source), "in.tar", 24)
    assert (entry["size"], entry["mtime_ns"]) == (status.st_size, status.st_mtime_ns)


def test_tokenizers_and_weights_by_their_hashes(finished: Path) -> None:
    manifest = read(finished)
    assert manifest["text"]["sha256"] == sha256(embedded.path("tokenizer.json"))
    assert manifest["image"]["sha256"] == sha256(embedded.path("image_tokenizer.safetensors"))
    assert (manifest["image"]["preset"], manifest["image"]["codebook_size"]) == ("embedded", 4096)


def test_the_configuration_and_the_code(finished: Path) -> None:
    manifest = read(finished)
    assert manifest["config"]["data"]["resolution"] == 32
    assert manifest["config"]["loader"]["batch_size"] == 4
    versions = {manifest["code_version"], manifest["plan_code_version"], *manifest["encoder_versions"]}
    assert versions == {code_version()}
    assert manifest["fingerprint"] == json.loads((finished / "plan.json").read_bytes())["fingerprint"]
    (libraries,) = manifest["libraries"]
    assert {"torch", "numpy", "pillow"} <= libraries.keys()


def test_the_arithmetic_and_the_devices(finished: Path) -> None:
    import torch

    manifest = read(finished)
    switches = {"compile": False, "tf32": False, "cudnn_benchmark": False, "deterministic_algorithms": True}
    assert manifest["arithmetic"] == {"dtype": "fp32", "cpu_threads": 1, "batch_size": 4} | switches
    assert manifest["devices"] == ["cpu"]
    assert not torch.backends.cuda.matmul.allow_tf32, "the process that encoded had these settings"
    assert not torch.backends.cudnn.benchmark
    assert torch.are_deterministic_algorithms_enabled()


def test_counts_and_gaps(finished: Path, tmp_path: Path) -> None:
    assert read(finished)["counts"]["written"] == 24
    assert read(finished)["gaps"] == []
    made.run(tmp_path / "run", unfinished={1: 8})
    combine(tmp_path / "run", CombineOptions(allow_tmp=True))
    manifest = read(tmp_path / "run")
    assert manifest["gaps"] == [{"shard": "00001-of-00004", "first_missing": 24, "missing": 8}]
    assert manifest["counts"]["missing"] == 8
    assert manifest["counts"]["rejected"]["unreadable_image"] > 0


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("inputs", 0, "mtime_ns"), 1),
        (("inputs", 0, "size"), 1),
        (("text", "sha256"), "0" * 64),
        (("image", "sha256"), "0" * 64),
        (("config", "data", "resolution"), 512),
        (("arithmetic", "dtype"), "bf16"),
        (("arithmetic", "tf32"), True),
        (("plan_code_version",), "9"),
        (("fingerprint",), "0" * 64),
        (("counts", "duplicate"), 1),
        (("content_digest",), "0" * 16),
        (("gaps",), [{"shard": "00000-of-00004", "first_missing": 0, "missing": 1}]),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_verify_finds_a_manifest_that_says_something_else(
    finished: Path, tmp_path: Path, path: tuple[str | int, ...], value: object
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    assert not [problem for report in verify.verify(run) for problem in report.problems]
    manifest: Any = read(run)
    target = manifest
    for name in path[:-1]:
        target = target[name]
    assert target[path[-1]] != value
    target[path[-1]] = value
    (run / "dataset/manifest.json").write_text(json.dumps(manifest))
    assert any("manifest.json" in problem for report in verify.verify(run) for problem in report.problems)
