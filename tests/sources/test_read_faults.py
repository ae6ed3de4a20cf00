"""A fault of the machine while reading is never the file's: the records are the same, or the file is named.

    pytest tests/sources/test_read_faults.py

faulty_reads.py does the work, under a library that makes system calls fail.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from hpcdata.sources import Options, list_inputs, read, scan
from tests.readfaults import HARMLESS, build, environment
from tests.sources.faulty_reads import CASES

Results = Mapping[str, Sequence[tuple[str, str, int, str]]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("faults")
    library = build(folder)
    command = [sys.executable, "-m", "tests.sources.faulty_reads", str(library), str(folder)]
    done = subprocess.run(
        command, env={**os.environ, **environment(library)}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_read_that_fails_costs_and_changes_no_sample(results: Results, case: str) -> None:
    wrong = [row for row in results[case] if row[3] not in ("same", "refused")]
    assert not wrong, f"{len(wrong)} of {len(results[case])}"


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_what_a_second_read_mends_is_not_noticed(results: Results, case: str) -> None:
    assert {row[3] for row in results[case] if row[1] in HARMLESS} == {"same"}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_error_reaches_whoever_reads(results: Results, case: str) -> None:
    failing = [row for row in results[case] if row[1] in ("EIO", "ESTALE", "ENOMEM")]
    assert failing
    assert [row for row in failing if row[3] != "refused"] == []


_SCARCE = """
import json, resource, sys
from hpcdata.sources import list_inputs, read, scan, Options
from hpcdata.samples import Reject
(file,) = list_inputs(sys.argv[1], "auto")
options = Options()
found = scan(file, every=9, options=options)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (48 << 20), resource.RLIM_INFINITY))
try:
    records = list(read(file, found, first=0, count=found.num_samples, options=options))
    print([type(record).__name__ for record in records])
except MemoryError:
    print("out of memory")
"""


def _zstd_of_a_large_window(path: Path) -> Path:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path.write_bytes(compressor.compress(b'{"text": "abc"}\n') + compressor.flush())
    return path


def _parquet_of_a_large_page(path: Path) -> Path:
    pq.write_table(pa.table({"text": ["abc" * (40 << 20)]}), path, compression="zstd", use_dictionary=False)
    return path


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (_zstd_of_a_large_window, "x.jsonl.zst"),
        pytest.param(_parquet_of_a_large_page, "x.parquet", marks=pytest.mark.slow),
    ],
)
def test_memory_that_is_not_there_is_no_damage(tmp_path: Path, make: Callable[[Path], Path], name: str) -> None:
    path = make(tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", _SCARCE, str(path)],
        env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "out of memory\n", done.stderr


def test_zlib_without_memory_is_no_damaged_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its windows are too small to fail for real."""

    class Decoder:
        def copy(self) -> Decoder:
            return self

        def decompress(self, data: bytes, limit: int = 0) -> bytes:
            raise zlib.error("Error -4 while decompressing data")

    path = tmp_path / "x.txt.gz"
    path.write_bytes(gzip.compress(b"text"))
    (file,) = list_inputs(str(path), "auto")
    found = scan(file, every=1, options=Options())
    monkeypatch.setattr(zlib, "decompressobj", lambda **_: Decoder())
    with pytest.raises(MemoryError):
        list(read(file, found, first=0, count=1, options=Options()))
