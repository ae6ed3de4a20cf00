"""The scripts of sbatch/ hand over what they are given.   python -m pytest tests/slurm/test_scripts.py"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "sbatch").glob("*.sbatch"))
GIVEN = ("+experiments='[webdataset,tokenize]'", "data.raw_data_dir=/a b/*.py", "", "/last/one.py")
PATHS = ("", "jobs/precompute_tokens.py", "models/datasets/combine_token_dicts.py", "/some where/script.py")


def handed_over(script: Path, folder: Path, *arguments: str) -> list[str]:
    """What Python is started with behind its module."""
    for name, rest in (("python", 'printf "%s\\n" "$@"'), ("srun", 'while [[ $1 == --* ]]; do shift; done; "$@"')):
        (folder / name).write_text(f"#!/bin/bash\n{rest}\n")
        (folder / name).chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "HPCDATA_PYTHON": str(folder / "python")}
    command = ["bash", str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    words = done.stdout.removesuffix("\n").split("\n")
    return words[words.index("-m") + 2 :]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
@pytest.mark.parametrize("path", PATHS)
def test_a_leading_path_of_a_script_is_left_out(script: Path, path: str, tmp_path: Path) -> None:
    """As the command line of UniDisc has it; whatever else ends like one stays where it stands."""
    found = handed_over(script, tmp_path, *([path] if path else []), *GIVEN)
    own = ["--workers", "2"] if script.stem == "index" else []
    assert found == [*own, *GIVEN]
    assert handed_over(script, tmp_path) == own
