"""Hostile inputs of at most 10 MB take no more than 30 s and 2 GiB, and are written, rejected or refused by a limit.

pytest tests/hostile/test_inputs.py
"""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from hpcdata.report.status import read_status
from hpcdata.sources import Options, list_inputs, read, scan
from tests.evidence import BAD_INPUTS, Account, Evidence
from tests.hostile.inputs import INPUTS, MOST_BYTES, one_byte_members

CPU_S, MEMORY_BYTES = 90, 2 << 30  # 30 s on a quiet core
PICTURES = {"strips", "floats", "scans", "color_profiles", "exif_segments", "pictures_of_one_record", "nested_folders"}
PICTURES |= {
    "webps",
    "webps_of_a_tar",
    "wavelets",
    "wavelets_with_alpha",
    "bitmaps_of_a_tar",
    "turns_of_nothing",
    "spaces_before_markers",
}
WRITTEN = {
    "pax_header": (1, {}),
    "one_byte_members_of_a_tar": (8, {}),
    "members_of_one_sample": (0, {"missing_text": 1}),
    "floats": (4, {}),
    "nested_folders": (2, {}),
    "long_numbers": (900, {"bad_json": 900}),
    "deep_json": (1, {"bad_json": 1}),
    "dictionary_rows": (0, {"oversized_text": 300}),
    "plain_rows": (0, {"oversized_text": 16}),
    "strips": (0, {"oversized_image": 1}),
    "scans": (0, {"oversized_image": 1}),
    "color_profiles": (0, {"oversized_image": 1}),
    "exif_segments": (0, {"oversized_image": 1}),
    "webps": (4, {}),
    "webps_of_a_tar": (0, {"oversized_image": 4800}),
    "wavelets": (4, {}),
    "wavelets_with_alpha": (0, {"oversized_image": 4}),
    "bitmaps_of_a_tar": (4, {"damaged_archive": 1}),
    "text_without_spaces": (0, {"oversized_text": 1}),
    "words": (1, {}),
    "tiny_records": (0, {"missing_text": 1_000_000, "bad_record": 1_000_000}),
    "tiny_frames": (62_500, {}),
    "turns_of_nothing": (0, {"oversized_record": 2, "missing_image": 1}),
    "spaces_before_markers": (0, {"missing_image": 1}),
}
"""Name -> written, rejected."""
REFUSED = {
    "pictures_of_one_record": "image has 500000 pictures, the limit is 10000",
    "long_keys": "unpacks to more than",
    "blank_lines": "unpacks to more than",
    "long_lines": "has texts of more than 1 MiB",
    "texts_of_a_tar": "has texts of more than 1 MiB",
    "links_to_a_text": "has texts of more than 1 MiB",
    "lines_of_nothing": "has more than",
    "items_of_nothing": "has more than",
    "rows_of_nothing": "has more than",
    "samples_of_nothing": "has more than",
    "short_rows": "has 200002 columns, the limit is 1000",
}


WATCH = """
import os, resource, subprocess, sys
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[1]), int(sys.argv[1])))
_, status, used = os.wait4(subprocess.Popen(sys.argv[2:]).pid, 0)
print("\\n" + str(os.waitstatus_to_exitcode(status)), used.ru_utime + used.ru_stime, used.ru_maxrss)
"""
"""Its child has the memory of its own, not that of the process of the tests, which a fork begins with."""


def launch(name: str, source: Path, run: Path, *, stage: str = "tokenize") -> tuple[str, float, int]:
    """(what it says, CPU seconds, bytes of memory) of a run from the launch to its end."""
    command = [sys.executable, "-m", "hpcdata.launch", f"stage={stage}", f"data.raw_data_dir={source}"]
    command += [f"data.token_output_dir={run}", "data.resolution=32", "data.max_rejected=1"]
    command += [f"text.tokenizer={'none' if stage == 'copy' else 'embedded'}"]
    has_codes = stage == "tokenize" and name in PICTURES
    command += [f"image.tokenizer={'embedded' if has_codes else 'none'}"]
    command += ["copy.decode=true"] if stage == "copy" else []
    done = subprocess.run(
        [sys.executable, "-c", WATCH, str(CPU_S), *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said, _, found = done.stdout.rstrip().rpartition("\n")
    code, seconds, kilobytes = found.split()
    assert int(code) >= 0, f"ended by signal {-int(code)}: {said[-1000:]}"
    return said, float(seconds), int(kilobytes) << 10


@pytest.mark.slow
@pytest.mark.parametrize("name", INPUTS)
def test_an_input_takes_no_more_time_and_memory_than_its_limits(
    tmp_path: Path, evidence: Evidence, request: pytest.FixtureRequest, name: str
) -> None:
    request.addfinalizer(lambda: subprocess.run(["rm", "-rf", str(tmp_path)], check=True))  # pytest cannot, so deep
    folder, run = tmp_path / "in", tmp_path / "run"
    folder.mkdir()
    source = INPUTS[name](folder)
    assert sum(path.stat().st_size for path in folder.glob("*")) <= MOST_BYTES
    said, _, memory = launch(name, source, run)
    assert memory <= MEMORY_BYTES
    assert "Traceback" not in said
    if name in REFUSED:
        assert REFUSED[name] in said
        assert not (run / "plan.json").exists()
        evidence(BAD_INPUTS, 1, counted=Account(planned=1, lost=0, duplicated=0))
        return
    status = read_status(run)
    assert status.is_finished, said[-1000:]
    if name in WRITTEN:
        assert (status.counts["written"], status.counts["rejected"]) == WRITTEN[name]
    evidence(BAD_INPUTS, 1, run)


def test_what_a_gzip_decoder_is_given_grows_with_the_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each member that ends hands back what follows it: of tiny ones, that was the whole piece again and again."""
    handed, real = 0, zlib.decompressobj

    class Counting:
        def __init__(self, decoder: Any) -> None:
            self._decoder = decoder

        def __getattr__(self, name: str) -> Any:
            return getattr(self._decoder, name)

        def decompress(self, data: bytes, limit: int = 0) -> bytes:
            nonlocal handed
            handed += len(data)
            return self._decoder.decompress(data, limit)

        def copy(self) -> Counting:
            return Counting(self._decoder.copy())

    monkeypatch.setattr(zlib, "decompressobj", lambda wbits: Counting(real(wbits=wbits)))
    given = []
    for times in (1, 2):
        folder = tmp_path / str(times)
        folder.mkdir()
        (file,) = list_inputs(str(one_byte_members(folder, times=times, width=10_000)), "auto")
        handed = 0
        found = scan(file, every=1, options=Options())
        assert len(list(read(file, found, first=0, count=found.num_samples, options=Options()))) == times
        given.append(handed / (folder / "x.jsonl.gz").stat().st_size)
    assert given[1] < 1.2 * given[0]
    assert given[0] < 3 * 512 / 21 * 2, "two passes, of at most one small piece for each member of 21 bytes"
