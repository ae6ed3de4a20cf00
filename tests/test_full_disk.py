"""A disk that is full, over quota or read-only: one line that says so, no litter, and all is well when it has room.

Each command is run with the disk full from its first change on, from its second, and so on.
pytest tests/test_full_disk.py
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpcdata import combine, embedded, export, index, rejects, status
from hpcdata.runs.claims import Claims, Owner
from tests.smallruns import small_run
from tests.writefaults import Injector, build

KINDS = {"full": errno.ENOSPC, "over quota": errno.EDQUOT, "read-only": errno.EROFS}
COMMANDS = {
    "combine": (combine.main, ["RUN"]),
    "compact": (combine.main, ["RUN", "--compact"]),
    "bake": (combine.main, ["RUN", "--bake", "t2i"]),
    "retry": (rejects.main, ["RUN", "--retry"]),
    "export": (export.main, ["MADE", "RUN/export", "--format", "unidisc"]),
    "megatron": (export.main, ["MADE", "RUN/export", "--format", "megatron"]),
    "mds": (export.main, ["MADE", "RUN/export", "--format", "mds"]),
    "index": (index.main, [str(embedded.path("quickstart.tar")), "-o", "RUN/index.json", "--workers=1"]),
    "html": (status.main, ["RUN", "--html", "RUN/page.html"]),
}

KEPT = "export.run"
"""The folder of a run in which what is done stays: the same line goes on."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a reject that has been mended; `made` beside it is combined."""
    folder = tmp_path_factory.mktemp("full")
    shutil.unpack_archive(embedded.path("quickstart.tar"), folder / "in", "tar")
    picture, *_ = sorted(path for path in (folder / "in").iterdir() if path.suffix != ".txt")
    good = picture.read_bytes()
    picture.write_bytes(good[:100] + bytes(len(good) - 100))
    times = picture.stat()
    small_run(folder / "run", source=folder / "in")
    picture.write_bytes(good)
    os.utime(picture, ns=(times.st_atime_ns, times.st_mtime_ns))
    small_run(folder / "made", source=folder / "in")
    assert combine.main([str(folder / "made")]) == 0
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", COMMANDS)
def test_each_point_ends_with_a_line_without_litter_and_the_next_try_succeeds(
    name: str, kind: str, run: Path, tmp_path: Path
) -> None:
    library = build(tmp_path)
    command = [sys.executable, "-m", "tests.test_full_disk", str(library), str(run), name, kind, str(tmp_path)]
    result = subprocess.run(
        command, env={**os.environ, "LD_PRELOAD": str(library)}, capture_output=True, text=True, timeout=500
    )
    assert result.returncode == 0, result.stdout + result.stderr
    points = json.loads(result.stdout.splitlines()[-1])
    assert points["faults"] >= (2 if kind == "full" else 1), points
    assert points["wrong"] == []


def test_a_claim_that_could_not_be_written_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next process would take it for that of another one."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Claims(tmp_path, Owner.of_this_process("a"), timeout_s=60) as claims:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(OSError, match=r"No space left.*combine"):
                claims.try_claim("combine")
        assert list(tmp_path.iterdir()) == []
        assert claims.try_claim("combine")


def _sweep(library: Path, run: Path, name: str, kind: str, scratch: Path) -> dict[str, object]:
    """In a process of its own: how many faults there were, and what went wrong."""
    injector, wrong, first = Injector(library), [], 0
    while kind == "full" or not first:
        folder = scratch / "disk" / "run"
        shutil.rmtree(folder.parent, ignore_errors=True)
        shutil.copytree(run, folder)
        if name == "bake":  # what is combined before stays
            assert _call("combine", folder, run)[0] == 0
        before = _names(folder)
        injector.set(folder, first=first, kind=KINDS[kind])
        code, told = _call(name, folder, run)
        if injector.stop() <= first:
            assert code == 0, told
            break
        litter = sorted(path for path in _names(folder) - before if not path.startswith(KEPT))
        if code and (litter or code != 1 or " cannot be written" not in told):
            wrong.append(f"fault {first}: exit code {code}, {told!r}, left {litter}")
        code, told = _call(name, folder, run)
        if code:
            wrong.append(f"after fault {first}: exit code {code}, {told!r}")
        first += 1 if first < 12 else 11
    return {"faults": first, "wrong": wrong}


def _call(name: str, folder: Path, run: Path) -> tuple[int, str]:
    main, arguments = COMMANDS[name]
    given = [item.replace("RUN", str(folder)).replace("MADE", str(run.with_name("made"))) for item in arguments]
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        code = main(given)
    return code, told.getvalue()


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


if __name__ == "__main__":
    at, made, which, how, where = sys.argv[1:]
    print(json.dumps(_sweep(Path(at), Path(made), which, how, Path(where))))
