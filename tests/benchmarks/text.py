"""Text tokenization as a whole job, compressed JSON lines in, committed shards out: one command, one table.

    python tests/benchmarks/text.py [--tokenizer TOKENIZER.JSON] [--corpus GLOB ...] [--rounds 3] [--scratch DIR]

Corpus: by default the pages of debian-handbook (26 languages) and the sources of linux-doc-6.1 (English), from Debian
packages of these names, and the Python code that is installed beside this interpreter, cut into documents of about
3 KB; none of it comes twice, as the engine remembers the words it has seen. Whole processes are timed, start-up
included, two processes each, in turns; the figure is the median. hpcdata gets all of the corpus, the peers every
fourth document. Ids of these are summed up and must be equal. `engine` is gigatoken alone on texts in memory, on all
cores, for the first time and once more, without its start-up; the last row has what hpcdata does once it has started:
the bytes and the time that all of the corpus takes above those of the quarter. Peers run in an environment of their
own (requirements-text-peers.txt), made in SCRATCH when it is not there.
"""

from __future__ import annotations

import argparse
import glob
import gzip
import html
import json
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import zstandard

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CORPUS = (
    "/usr/share/doc/debian-handbook/html/*/*.html",
    "/usr/share/doc/linux-doc-6.1/Documentation/**/*.rst.gz",
    f"{sysconfig.get_path('purelib')}/**/*.py",
)
PARTS = {"whole": 1, "quarter": 4}
"""Part -> of how many documents it has one."""
DOCUMENT_CHARACTERS = 3000
NUM_FILES = 8
PEERS = ("datatrove", "huggingface")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokenizer", default=str(ROOT / "hpcdata/embedded/tokenizer.json"))
    parser.add_argument("--corpus", nargs="+", default=CORPUS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        scratch = options.scratch or Path(temporary)
        documents = read_corpus(options.corpus, options.tokenizer)
        whole, quarter = (Part.write(documents[::step], scratch / name) for name, step in PARTS.items())
        peers = peers_python(scratch)
        runs = {name: Run(name, sys.executable, whole) for name in ("hpcdata", "engine", "engine-again")}
        runs |= {name: Run(name, peers, quarter) for name in PEERS}
        small = Run("hpcdata", sys.executable, quarter)
        for _ in range(options.rounds):
            for run in (*runs.values(), small):
                run.time(options.tokenizer, scratch / run.job)
        ended = (small, *(runs[name] for name in PEERS))
        sums = {run.job: run.sums(options.tokenizer, scratch / run.job) for run in ended}
    print(f"{platform.machine()}, {os.cpu_count()} cores, {whole.num_bytes / 1e6:.0f} MB in {len(documents)} documents")
    print(f"{Path(options.tokenizer).name}, gigatoken {version('gigatoken')}, tokenizers {version('tokenizers')}\n")
    rates = {name: run.rate for name, run in runs.items()}
    more_bytes = whole.num_bytes - quarter.num_bytes
    later = more_bytes / 1e6 / (runs["hpcdata"].median_s - small.median_s)
    print("| | MB/s | hpcdata is |\n|---|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.1f} | {rates['hpcdata'] / rate:.2f}x |")
    print(f"| hpcdata, the last three quarters | {later:.1f} | {later / rates['engine']:.2f}x of engine |")
    if len(set(sums.values())) > 1:
        print(f"ids differ: {sums}")
        return 1
    return 0


@dataclass(frozen=True)
class Part:
    """Some of the corpus, as files."""

    folder: Path
    num_bytes: int

    @classmethod
    def write(cls, documents: Sequence[str], folder: Path) -> Part:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for number in range(NUM_FILES):
            lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents[number::NUM_FILES]]
            data = zstandard.ZstdCompressor(3).compress("".join(lines).encode())
            (folder / f"{number:02}.json.zst").write_bytes(data)
        return cls(folder, sum(len(text.encode()) for text in documents))


@dataclass
class Run:
    """One way to do it, and how long it took."""

    job: str
    python: str
    part: Part
    seconds: list[float] = field(default_factory=list)

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """MB/s, the median."""
        return self.part.num_bytes / 1e6 / self.median_s

    def time(self, tokenizer: str, out: Path) -> None:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        started = time.perf_counter()
        printed = self._run(self.job, tokenizer, out)
        seconds = float(printed) if self.job.startswith("engine") else time.perf_counter() - started
        self.seconds.append(seconds)

    def sums(self, tokenizer: str, out: Path) -> str:
        return self._run(f"{self.job}-sum", tokenizer, out).strip().splitlines()[-1]

    def _run(self, job: str, tokenizer: str, out: Path) -> str:
        command = [self.python, HERE / "text_peers.py", job, self.part.folder, tokenizer, out / "out"]
        quiet = {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1"}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **quiet}
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)
        if done.returncode:
            sys.exit(f"{job} failed:\n{done.stderr[-3000:]}")
        return done.stdout


def read_corpus(patterns: Sequence[str], tokenizer: str) -> list[str]:
    """Documents that are not in it before, in an order of their own.

    Without the letters of control tokens: to hpcdata they are letters, to the others they are the control tokens.
    """
    added = json.loads(Path(tokenizer).read_bytes())["added_tokens"]
    controls = re.compile("|".join(re.escape(token["content"]) for token in added) or r"(?!)")
    documents = list(dict.fromkeys(controls.sub(" ", text) for pattern in patterns for text in _documents(pattern)))
    if not documents:
        sys.exit(f"no files match {' '.join(patterns)}: apt-get install debian-handbook linux-doc-6.1, or use --corpus")
    random.Random(1).shuffle(documents)
    return documents


def _documents(pattern: str) -> Iterator[str]:
    for path in sorted(glob.glob(pattern, recursive=True)):
        data = gzip.decompress(Path(path).read_bytes()) if path.endswith(".gz") else Path(path).read_bytes()
        text = data.decode(errors="replace")
        if path.endswith(".html"):
            text = html.unescape(re.sub(r"<[^>]+>", "", re.sub(r"(?s)<(script|style).*?</\1>", "", text)))
        text = re.sub(r"\n\s*\n+", "\n\n", text.replace("\0", "")).strip()
        for start in range(0, len(text), DOCUMENT_CHARACTERS):
            if piece := text[start : start + DOCUMENT_CHARACTERS].strip():
                yield piece


def peers_python(scratch: Path) -> str:
    folder = scratch / "venv-text"
    if not (folder / "bin/python").exists():
        venv.create(folder, with_pip=True)
        install = [folder / "bin/pip", "install", "-q", "-r", HERE / "requirements-text-peers.txt"]
        subprocess.run(install, check=True)
    return str(folder / "bin/python")


if __name__ == "__main__":
    sys.exit(main())
