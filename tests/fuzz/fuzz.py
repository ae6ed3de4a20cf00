"""Coverage-guided fuzzing of our parsers with atheris (pip install atheris).

    python -m tests.fuzz.fuzz                     every target for 30 s
    python -m tests.fuzz.fuzz tar plan -s 600     these, for ten minutes each

A finding is kept in tests/fuzz/regressions/<target>-<sha256>, which test_fuzz.py replays from then on.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

REGRESSIONS = Path(__file__).parent / "regressions"
HANG_S = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("-s", "--seconds", type=int, default=30)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if options.one:
        _fuzz(options.one, [*rest, *options.targets])  # the corpus folder is positional, too
        return 0
    from tests.fuzz.seeds import seeds
    from tests.fuzz.targets import TARGETS

    unknown = set(options.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"no such targets: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception: temporary folders are removed on its way
    corpus, failed = seeds(), []
    for name in options.targets or TARGETS:
        if not _run(name, corpus[name], options.seconds):
            failed.append(name)
    print(f"{len(failed)} targets with findings {failed or ''}")
    return 1 if failed else 0


def _run(name: str, corpus: list[bytes], seconds: int) -> bool:
    with tempfile.TemporaryDirectory(prefix="hpcdata-fuzz-") as folder:
        for part in ("corpus", "tmp"):
            Path(folder, part).mkdir()
        for number, data in enumerate(corpus):
            Path(folder, "corpus", str(number)).write_bytes(data)
        command = [sys.executable, "-m", "tests.fuzz.fuzz", "--one", name, f"{folder}/corpus"]
        limits = [f"-max_total_time={seconds}", f"-timeout={HANG_S}", "-rss_limit_mb=2048", "-max_len=32768"]
        result = subprocess.run(
            [*command, *limits, f"-artifact_prefix={folder}/found-"],
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "TMPDIR": f"{folder}/tmp"},  # it ends without cleaning up
        )
        lines = result.stderr.splitlines()
        done = next((line for line in reversed(lines) if "cov:" in line), "")
        print(f"{name:<10} {'ok' if result.returncode == 0 else 'FOUND'}  {done.strip()}", flush=True)
        for found in Path(folder).glob("found-*"):
            data = found.read_bytes()
            kept = REGRESSIONS / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
            kept.write_bytes(data)
            print(f"  kept {kept}")
        if result.returncode:
            print(*("  " + line for line in lines if "cov:" not in line and "NEW" not in line), sep="\n")
        return result.returncode == 0


def _fuzz(name: str, arguments: list[str]) -> None:
    import atheris

    with warnings.catch_warnings(), atheris.instrument_imports(include=["hpcdata"]):
        warnings.simplefilter("ignore")
        from tests.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
