"""Programs named sbatch, srun, scontrol, squeue and scancel, alone in PATH: what they are told is kept in files."""

from __future__ import annotations

from pathlib import Path

import pytest

SBATCH = """\
env > {folder}/environment
cat > {folder}/stdin
echo sbatch >> {folder}/calls
number=$(( $(cat {folder}/last 2>/dev/null || echo 4241) + 1 ))
echo $number > {folder}/last
cp {folder}/stdin {folder}/$number
echo Submitted batch job $number
"""

LIMIT = """\
cat > {folder}/stdin
size=$(( $(grep -oP -- '--array=0-\\K\\d+' {folder}/stdin || echo 0) + 1 ))
used=$(cat {folder}/used 2>/dev/null || echo 0)
if (( used + size > {limit} )); then
    echo 'sbatch: error: {reason}' >&2
    exit 1
fi
echo $(( used + size )) > {folder}/used
"""
GIVE_BACK = """\
echo scancel "$@" >> {folder}/calls
echo $(( $(cat {folder}/used) - 1 )) > {folder}/used
"""


class FakeSlurm:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        self.program("sbatch", SBATCH.format(folder=folder))
        self.program("srun", "exit 1")
        self.program("scontrol", "echo 'MaxArraySize            = 1001'")
        for name in ("squeue", "scancel", "sacct", "sinfo", "sacctmgr"):
            self.program(name, f'echo {name} "$@" >> {folder}/calls')
        monkeypatch.setenv("PATH", f"{folder}:/bin")

    def program(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    def limit_jobs(self, limit: int, reason: str = "AssocMaxSubmitJobLimit") -> None:
        """From now on no more than so many array elements and jobs are taken, but for each scancel one more."""
        (self.folder / "used").unlink(missing_ok=True)
        accept = SBATCH.format(folder=self.folder).replace("cat > ", "cat >> ")
        self.program("sbatch", LIMIT.format(folder=self.folder, limit=limit, reason=reason) + accept)
        self.program("scancel", GIVE_BACK.format(folder=self.folder))

    def calls(self) -> list[str]:
        """Each call of a program, sbatch without its arguments."""
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def scripts(self) -> list[str]:
        """What each sbatch got."""
        paths = sorted((path for path in self.folder.glob("[0-9]*")), key=lambda path: int(path.name))
        return [path.read_text() for path in paths]
