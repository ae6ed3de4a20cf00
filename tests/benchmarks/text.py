"""Text tokenization as a whole job, compressed JSON lines in, committed shards out: one command, one table.

    python tests/benchmarks/text.py [--tokenizer TOKENIZER.JSON] [--corpus GLOB ...] [--repeat 8] [--rounds 3]
                                    [--scratch DIR]

Corpus: by default the pages of debian-handbook (26 languages) and the sources of linux-doc-6.1 (English), from Debian
packages of these names, cut into documents of about 3 KB. Whole processes are timed, start-up included, two processes
each, in turns; the figure is the median. hpcdata and the engine get the corpus `--repeat` times, so that start-up
does not hide the rest, the peers once. Ids are summed up and must be equal. `engine` is gigatoken alone on texts in
memory. Peers run in an environment of their own (requirements-text-peers.txt), made in SCRATCH when it is not there.
"""

from __future__ import annotations

import argparse
import glob
import gzip
import html
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
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
CORPUS = ("/usr/share/doc/debian-handbook/html/*/*.html", "/usr/share/doc/linux-doc-6.1/Documentation/**/*.rst.gz")
DOCUMENT_CHARACTERS = 3000
NUM_FILES = 8
PEERS = ("datatrove", "huggingface")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokenizer", default=str(ROOT / "hpcdata/embedded/tokenizer.json"))
    parser.add_argument("--corpus", nargs="+", default=CORPUS)
    parser.add_argument("--repeat", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        scratch = options.scratch or Path(temporary)
        once, often = scratch / "once", scratch / "often"
        num_bytes, num_documents = write_corpus(options.corpus, once, 1, options.tokenizer)
        write_corpus(options.corpus, often, options.repeat, options.tokenizer)
        peers = peers_python(scratch)
        runs = {name: Run(name, sys.executable, often, options.repeat * num_bytes) for name in ("hpcdata", "engine")}
        runs |= {name: Run(name, peers, once, num_bytes) for name in PEERS}
        for _ in range(options.rounds):
            for run in runs.values():
                run.time(options.tokenizer, scratch / run.name)
        runs["hpcdata"].inputs = once
        runs["hpcdata"].time(options.tokenizer, scratch / "hpcdata", is_counted=False)
        sums = {name: runs[name].sums(options.tokenizer, scratch / name) for name in ("hpcdata", *PEERS)}
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {num_bytes / 1e6:.0f} MB in {num_documents} documents, ", end=""
    )
    print(f"{Path(options.tokenizer).name}, gigatoken {version('gigatoken')}, tokenizers {version('tokenizers')}\n")
    print("| | MB/s | hpcdata is |\n|---|---|---|")
    for name, run in runs.items():
        print(f"| {name} | {run.rate:.1f} | {runs['hpcdata'].rate / run.rate:.2f}x |")
    if len(set(sums.values())) > 1:
        print(f"ids differ: {sums}")
        return 1
    return 0


@dataclass
class Run:
    """One way to do it, and how long it took."""

    name: str
    python: str
    inputs: Path
    num_bytes: int
    seconds: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.num_bytes / 1e6 / statistics.median(self.seconds)

    def time(self, tokenizer: str, out: Path, *, is_counted: bool = True) -> None:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        started = time.perf_counter()
        printed = self._run(self.name, tokenizer, out)
        seconds = float(printed) if self.name == "engine" else time.perf_counter() - started
        if is_counted:
            self.seconds.append(seconds)

    def sums(self, tokenizer: str, out: Path) -> str:
        return self._run(f"{self.name}-sum", tokenizer, out).strip().splitlines()[-1]

    def _run(self, job: str, tokenizer: str, out: Path) -> str:
        command = [self.python, HERE / "text_peers.py", job, self.inputs, tokenizer, out / "out"]
        quiet = {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1"}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **quiet}
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)
        if done.returncode:
            sys.exit(f"{job} failed:\n{done.stderr[-3000:]}")
        return done.stdout


def write_corpus(patterns: Sequence[str], folder: Path, repeat: int, tokenizer: str) -> tuple[int, int]:
    """Returns the bytes of text and the number of documents.

    Without the letters of control tokens: to hpcdata they are letters, to the others they are the control tokens.
    """
    added = json.loads(Path(tokenizer).read_bytes())["added_tokens"]
    controls = re.compile("|".join(re.escape(token["content"]) for token in added) or r"(?!)")
    documents = [controls.sub(" ", text) for pattern in patterns for text in _documents(pattern)]
    if not documents:
        sys.exit(f"no files match {' '.join(patterns)}: apt-get install debian-handbook linux-doc-6.1, or use --corpus")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number in range(NUM_FILES):
        lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents[number::NUM_FILES])
        data = zstandard.ZstdCompressor(3).compress(lines.encode() * repeat)
        (folder / f"{number:02}.json.zst").write_bytes(data)
    return repeat * sum(len(text.encode()) for text in documents), repeat * len(documents)


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
