"""Every source under every fault of reading, in a process of its own: `test_read_faults.py` starts it.

    LD_PRELOAD=... python -m tests.sources.faulty_reads LIBRARY FOLDER

Prints one JSON object: case -> [operation, fault, number of the read, what came of it].
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hpcdata import sources
from hpcdata.base.errors import UserError
from hpcdata.samples import ImagePart, Record, Sample
from hpcdata.sources import InputFile, Options, Scan
from tests.readfaults import KINDS, LASTING, LASTING_KINDS, Injector
from tests.sources.source_files import json_lines, pairs, write, write_tar

Make = Callable[[Path], Any]
_OPTIONS = Options(keeps_members=True)


def _words(number: int, size: int = 50_000) -> str:
    """Text that cannot be compressed much."""
    return random.Random(number).randbytes(size // 2).hex()


def _documents(suffix: str) -> Make:
    return lambda folder: write(folder / f"x{suffix}", json_lines({"text": _words(number)} for number in range(24)))


def _pairs_of_lines(suffix: str) -> Make:
    def make(folder: Path) -> None:
        rows = [{"image": f"{number}.png", "text": _words(number)} for number in range(24)]
        for number in range(24):
            write(folder / f"{number}.png", bytes([number + 1]) * 3000)
        write(folder / f"x{suffix}", json_lines(rows))

    return make


def _array(field: str) -> Make:
    rows = [{field: _words(number)} for number in range(24)]
    return lambda folder: write(folder / "x.json", json.dumps(rows).encode())


def _tar(suffix: str) -> Make:
    members = [*pairs(20), *pairs(5), *pairs(5, size=900), *pairs(10, first=50, size=70_000)]
    return lambda folder: write_tar(folder / f"x{suffix}", members)


def _indexed(folder: Path) -> None:
    write_tar(folder / "x.tar", pairs(20))
    index = {"wids_version": 1, "shardlist": [{"url": "x.tar", "nsamples": 20}]}
    write(folder / "index.json", json.dumps(index).encode())


def _pictures(folder: Path) -> None:
    for number in range(12):
        write(folder / f"{number}.png", bytes([number + 1]) * 3000)
        write(folder / f"{number}.txt", f"caption {number}".encode())


def _parquet(**options: Any) -> Make:
    def make(folder: Path) -> None:
        folder.mkdir(parents=True)
        table = pa.table({"text": [_words(number, 500) for number in range(4000)], "id": list(range(4000))})
        pq.write_table(table, folder / "x.parquet", row_group_size=1000, **options)

    return make


def _parquet_of_pictures(folder: Path) -> None:
    folder.mkdir(parents=True)
    held = [{"bytes": random.Random(number).randbytes(3000), "path": f"{number}.png"} for number in range(60)]
    table = pa.table({"image": held, "text": [_words(number, 500) for number in range(60)]})
    pq.write_table(table, folder / "x.parquet", row_group_size=20)


def _metadata(folder: Path) -> None:
    _pictures(folder)
    rows = [f'{number}.png,"{_words(number)}"\n' for number in range(12)]
    write(folder / "metadata.csv", "".join(["file_name,text\n", *rows]).encode())


CASES: dict[str, Make] = {
    "tar": _tar(".tar"),
    "tar_gz": _tar(".tar.gz"),
    "index": _indexed,
    "pairs": _pairs_of_lines(".jsonl"),
    "pairs_gz": _pairs_of_lines(".jsonl.gz"),
    "documents": _documents(".jsonl"),
    "documents_gz": _documents(".jsonl.gz"),
    "documents_zst": _documents(".jsonl.zst"),
    "array": _array("caption"),
    "text_array": _array("text"),
    "pictures": _pictures,
    "text": lambda folder: write(folder / "x.txt", _words(1, 3 << 20).encode()),
    "text_gz": lambda folder: write(folder / "x.txt.gz", _words(1, 300_000).encode()),
    "text_zst": lambda folder: write(folder / "x.txt.zst", _words(1, 300_000).encode()),
    "parquet": _parquet(),
    "parquet_of_pictures": _parquet_of_pictures,
    "metadata": _metadata,
    "parquet_plain": _parquet(compression="none", use_dictionary=False),
}


def results(injector: Injector, folder: Path) -> Iterator[tuple[str, str, int, str]]:
    """(operation, fault, number of the read, "same", "refused" or what is wrong) for one input."""
    file, scan = _plan(folder)
    operations: dict[str, Callable[[], Any]] = {"plan": lambda: _plan(folder), "read": lambda: _read(file, scan)}
    if sources.gives_documents(file.format):
        operations["documents"] = lambda: _read_documents(file, scan)
    for name, operation in operations.items():
        injector.watch(str(folder))
        expected = operation()
        num_reads = injector.stop()
        assert num_reads or (name, scan.num_samples) == ("plan", 1), f"no read of {folder} was seen"
        for number in sorted({0, 1, num_reads // 2, num_reads - 2, num_reads - 1} & {*range(num_reads)}):
            for fault, kind in KINDS.items():
                for count in (1, LASTING) if fault in LASTING_KINDS else (1,):
                    injector.set(str(folder), first=number, count=count, kind=kind)
                    found = _outcome(operation, expected, folder, injector)
                    yield name, fault + (", lasting" if count > 1 else ""), number, found


def _outcome(operation: Callable[[], Any], expected: Any, folder: Path, injector: Injector) -> str:
    try:
        found = operation()
    except (OSError, UserError) as error:
        injector.stop()
        if str(folder) not in str(error):
            return f"refused without a name: {error!r}"
        return "refused" if operation() == expected else "differs when it is tried again"
    except Exception as error:
        return f"raised {error!r}"
    finally:
        injector.stop()
    return "same" if found == expected else f"differs: {str(found)[:300]}"


def _plan(folder: Path) -> tuple[InputFile, Scan]:
    (file,) = sources.list_inputs(str(folder), "auto")
    file = sources.prepare(file, folder.with_name(f"{folder.name}-prepared"))
    return file, sources.scan(file, every=7, options=_OPTIONS)


def _read(file: InputFile, scan: Scan) -> list[tuple[Record, list[bytes]]]:
    """In two slices, so that a stream that was left goes on."""
    half = scan.num_samples // 2
    slices = ((0, half), (half, scan.num_samples - half))
    return [
        (record, _bytes(record))
        for first, count in slices
        for record in sources.read(file, scan, first=first, count=count, options=_OPTIONS)
    ]


def _bytes(record: Record) -> list[bytes]:
    if not isinstance(record, Sample):
        return []
    pictures = [part.blob for part in record.parts if isinstance(part, ImagePart)]
    return [blob.read(max_bytes=1 << 23) for blob in (*pictures, *(member.blob for member in record.members))]


def _read_documents(file: InputFile, scan: Scan) -> list[Any]:
    batches = sources.read_documents(
        file, scan, first=0, count=scan.num_samples, batch_size=16, options=Options(max_record_bytes=1 << 20)
    )
    return [(batch.positions, batch.texts, batch.offsets, batch.rejects) for batch in batches]


def main() -> None:
    library, root = sys.argv[1:]
    injector, found = Injector(Path(library)), {}
    for name, make in CASES.items():
        make(Path(root) / name)
        found[name] = list(results(injector, Path(root) / name))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
