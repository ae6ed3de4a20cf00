"""What checkpoints cost at an interval of 30 s.   python tests/benchmarks/checkpoints.py [FOLDER]

Writes a shard of 256 x 256 pictures (256 codes and a text each), as fast as a GPU would make it, and times each
checkpoint (fsync of every column, progress.json). FOLDER: where to write, by default a temporary folder.
"""

from __future__ import annotations

import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from hpcdata.shards.tables import EncodedBatch
from hpcdata.shards.takeover import open_shard
from tests import made

INTERVAL_S = 30.0
SAMPLES_PER_S = 500
NUM_CHECKPOINTS = 8
BATCH = 500


def main() -> int:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        per_interval = int(INTERVAL_S * SAMPLES_PER_S)
        header = made.header(num_inputs=per_interval * NUM_CHECKPOINTS)
        writer = open_shard(Path(folder), header, "benchmark")
        assert writer is not None
        batch = EncodedBatch(examples=[made.example(index, side=16) for index in range(BATCH)])
        checkpoints, notes = [], []
        for _ in range(NUM_CHECKPOINTS):
            for _ in range(per_interval // BATCH):
                writer.append(batch)
                started = time.perf_counter()
                writer.note_work()
                notes.append(time.perf_counter() - started)
            started = time.perf_counter()
            writer.checkpoint()
            checkpoints.append(time.perf_counter() - started)
        writer.close()
    print(f"{platform.machine()}, {platform.system()} {platform.release()}, {SAMPLES_PER_S} samples/s of 256 codes")
    median, longest = statistics.median(checkpoints) * 1e3, max(checkpoints) * 1e3
    print(f"one checkpoint    median {median:.1f} ms, longest {longest:.1f} ms")
    print(f"one note of work  median {statistics.median(notes) * 1e6:.1f} us")
    share = statistics.mean(checkpoints) / INTERVAL_S + statistics.mean(notes) * per_interval / 16 / INTERVAL_S
    print(f"share of run time {100 * share:.3f} % at an interval of {INTERVAL_S:.0f} s (promised: below 1 %)")
    return 0 if share < 0.01 else 1


if __name__ == "__main__":
    sys.exit(main())
