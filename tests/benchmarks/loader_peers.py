"""One loader under test, in a process of its own, driven by loader.py over standard input and output.

    python loader_peers.py PEER DATA SCRATCH WORKERS THREADS

DATA has ids.npy (uint16, all samples end to end) and ends.npy. Every peer brings the same samples into the form that
it reads, shuffles them, and yields [up to 256, 1024] int64 batches padded with zeros. Commands, one a line: `check`
runs one epoch and answers with the number of samples and an order-free checksum; `time SECONDS` answers with samples
per second. Imports nothing of hpcdata but for the peer of that name.
"""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

WIDTH, BATCH = 1024, 256
PREFETCH = 16


class Samples:
    """The flat arrays, mapped."""

    def __init__(self, data: Path) -> None:
        self.ids = np.asarray(np.load(data / "ids.npy", mmap_mode="r"))
        self.ends = np.load(data / "ends.npy")
        self.starts = np.concatenate([[0], self.ends[:-1]])

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.ids[self.starts[row] : self.ends[row]]


class BatchedSamples(Samples):
    """With the hook for whole batches that torch looks for, as an expert would write it."""

    def __getitems__(self, rows: list[int]) -> list[np.ndarray]:
        ids = self.ids
        starts, ends = self.starts[rows].tolist(), self.ends[rows].tolist()
        return [ids[start:end] for start, end in zip(starts, ends, strict=True)]


def pad(samples: list) -> torch.Tensor:
    out = np.zeros((len(samples), WIDTH), np.int64)
    for row, sample in enumerate(samples):
        out[row, : len(sample)] = sample
    return torch.from_numpy(out)


def statefuldataloader(
    data: Path, scratch: Path, workers: int, samples: type[Samples] = Samples
) -> Iterator[torch.Tensor]:
    from torchdata.stateful_dataloader import StatefulDataLoader

    loader = StatefulDataLoader(samples(data), BATCH, shuffle=True, collate_fn=pad, num_workers=workers)
    return epochs(lambda: loader)


def statefuldataloader_batched(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    return statefuldataloader(data, scratch, workers, BatchedSamples)


def unidisc(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    """Rows of a memory-mapped TensorDict, padded when it was made, one at a time, stacked and widened."""
    from tensordict import TensorDict
    from torch.utils.data import DataLoader

    if not (scratch / "td").exists():
        scratch.mkdir(parents=True, exist_ok=True)
        samples = Samples(data)
        rows = np.zeros((len(samples), WIDTH), np.int32)
        for row in range(len(samples)):
            rows[row, : len(samples[row])] = samples[row]
        TensorDict({"input_ids": torch.from_numpy(rows)}, [len(rows)]).memmap_(str(scratch / "td"))

    def collate(rows: list) -> torch.Tensor:
        return torch.stack(rows)["input_ids"].to(torch.int64)

    table = TensorDict.load_memmap(str(scratch / "td"))
    loader = DataLoader(RowByRow(table), BATCH, shuffle=True, collate_fn=collate, num_workers=workers)
    return epochs(lambda: loader)


def fixed_rows(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    """Rows of int16, padded when they were made, in a memory map: one index_select a batch, then widened.

    No loader, but what an expert writes who needs no state, no mixture and no other key. A third more on disk.
    """
    _keep_freed_memory()
    path = scratch / "rows.int16"
    samples = Samples(data)
    if not path.exists():
        rows = np.zeros((len(samples), WIDTH), np.int16)
        for row in range(len(samples)):
            rows[row, : len(samples[row])] = samples[row]
        rows.tofile(path)
    shape = (len(samples), WIDTH)
    table = torch.from_file(str(path), size=len(samples) * WIDTH, dtype=torch.int16).view(shape)
    buffer = torch.empty((BATCH, WIDTH), dtype=torch.int16)

    def epoch() -> Iterator[torch.Tensor]:
        for rows in torch.randperm(len(table)).split(BATCH):
            torch.index_select(table, 0, rows, out=buffer[: len(rows)])
            yield buffer[: len(rows)].to(torch.int64)

    return epochs(epoch)


def _keep_freed_memory() -> None:
    """Otherwise glibc gives each batch that is let go of back to the kernel, or does not, as its heap happens to lie:
    330 page faults a batch, or none. None is twice as fast.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for option, num_bytes in ((-3, 2**25), (-1, 2**29)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            libc.mallopt(option, num_bytes)


class RowByRow:
    def __init__(self, table: object) -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> object:
        return self.table[row]


def tensordict(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    """The same table, a batch of rows at a time: TensorDict has a hook for that of its own."""
    from tensordict import TensorDict
    from torchdata.stateful_dataloader import StatefulDataLoader

    next(unidisc(data, scratch.with_name("unidisc"), 0))
    table = TensorDict.load_memmap(str(scratch.with_name("unidisc") / "td"))

    def widen(rows: object) -> torch.Tensor:
        return rows["input_ids"].to(torch.int64)

    loader = StatefulDataLoader(table, BATCH, shuffle=True, collate_fn=widen, num_workers=workers)
    return epochs(lambda: loader)


def grain(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    """`workers` are its threads: processes were slower by far; 0: none, and nothing is read ahead."""
    import grain.python as pygrain

    dataset = pygrain.MapDataset.source(Samples(data)).shuffle(seed=1)
    options = pygrain.ReadOptions(num_threads=workers, prefetch_buffer_size=512 if workers else 0)

    def epoch() -> Iterator[torch.Tensor]:
        return iter(dataset.to_iter_dataset(options).batch(BATCH, drop_remainder=False, batch_fn=pad))

    return epochs(epoch)


def huggingface(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    import datasets
    import pyarrow as pa
    from torch.utils.data import DataLoader

    if not (scratch / "arrow").exists():
        samples = Samples(data)
        offsets = pa.array(np.concatenate([[0], samples.ends]).astype(np.int32))
        column = pa.ListArray.from_arrays(offsets, pa.array(samples.ids))
        datasets.Dataset(pa.table({"ids": column})).save_to_disk(str(scratch / "arrow"))
    found = datasets.load_from_disk(str(scratch / "arrow")).with_format("numpy")

    def collate(rows: list) -> torch.Tensor:
        return pad([row["ids"] for row in rows])

    loader = DataLoader(found, BATCH, shuffle=True, collate_fn=collate, num_workers=workers)
    return epochs(lambda: loader)


def webdataset(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    import io

    import webdataset as wds

    if not list(scratch.glob("*.tar")):
        samples = Samples(data)
        with wds.ShardWriter(str(scratch / "%05d.tar"), maxcount=5000, verbose=0) as writer:
            for row in range(len(samples)):
                buffer = io.BytesIO()
                np.save(buffer, samples[row])
                writer.write({"__key__": f"{row:09d}", "npy": buffer.getvalue()})
    shards = sorted(map(str, scratch.glob("*.tar")))

    def collate(rows: list) -> torch.Tensor:
        return pad([row[0] for row in rows])

    dataset = wds.WebDataset(shards, shardshuffle=len(shards), empty_check=False).shuffle(1000)
    dataset = dataset.decode().to_tuple("npy").batched(BATCH, collation_fn=collate)
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=workers)
    return epochs(lambda: loader)


def litdata(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    target = scratch / "litdata"
    if not (target / "index.json").exists():
        samples = Samples(data)
        writer = BinaryWriter(str(target), chunk_bytes=2**26)
        for row in range(len(samples)):
            writer.add_item(row, np.array(samples[row]))
        writer.done()
        writer.merge()
    dataset = StreamingDataset(str(target), shuffle=True, drop_last=False)
    loader = StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers, collate_fn=pad)
    return epochs(lambda: loader)


def mosaicml(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    import streaming
    from torch.utils.data import DataLoader

    streaming.base.util.clean_stale_shared_memory()
    target = scratch / "mds"
    if not (target / "index.json").exists():
        samples = Samples(data)
        with streaming.MDSWriter(out=str(target), columns={"ids": "ndarray:uint16"}, size_limit=2**26) as writer:
            for row in range(len(samples)):
                writer.write({"ids": np.array(samples[row])})
    dataset = streaming.StreamingDataset(local=str(target), shuffle=True, batch_size=BATCH)

    def collate(rows: list) -> torch.Tensor:
        return pad([row["ids"] for row in rows])

    loader = DataLoader(dataset, BATCH, collate_fn=collate, num_workers=workers)
    return epochs(lambda: loader)


def megatron(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    """Its memory-mapped IndexedDataset, a document a row. (GPTDataset cuts documents: its rows are others.)"""
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder
    from torch.utils.data import DataLoader

    prefix, samples = scratch / "ids", Samples(data)
    if not prefix.with_suffix(".idx").exists():
        builder = IndexedDatasetBuilder(str(prefix.with_suffix(".bin")), dtype=np.uint16)
        for row in range(len(samples)):
            builder.add_document(torch.from_numpy(np.array(samples[row])), [len(samples[row])])
        builder.finalize(str(prefix.with_suffix(".idx")))
    dataset = IndexedDataset(str(prefix))
    loader = DataLoader(dataset, BATCH, shuffle=True, collate_fn=pad, num_workers=workers)
    return epochs(lambda: loader)


def energon(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    """Tars of its own kind, cooked by a function that reads ids from bytes."""
    import webdataset as wds
    from megatron import energon as own
    from megatron.energon.flavors import BaseWebdatasetFactory

    folder, samples = scratch / "tars", Samples(data)
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with wds.ShardWriter(str(folder / "%05d.tar"), maxcount=5000, verbose=0) as writer:
            for row in range(len(samples)):
                writer.write({"__key__": f"{row:09d}", "bin": samples[row].tobytes()})
        shards = sorted(path.name for path in folder.glob("*.tar"))
        BaseWebdatasetFactory.prepare_dataset(
            folder, shards, split_parts_ratio=[("train", 1.0)], shuffle_seed=None, progress_fn=lambda items, _: items
        )
        (folder / ".nv-meta" / "dataset.yaml").write_text(
            "__module__: megatron.energon\n__class__: CrudeWebdataset\nsubflavors: {}\n"
        )
        (folder / "complete").touch()

    @dataclasses.dataclass
    class Row(own.Sample):
        ids: np.ndarray

    @own.stateless
    def cook(sample: dict) -> Row:
        return Row(**own.basic_sample_keys(sample), ids=np.frombuffer(sample["bin"], np.uint16))

    class Encoder(own.DefaultTaskEncoder):
        cookers = (own.Cooker(cook),)
        decoder = None

        def batch(self, rows: list) -> torch.Tensor:
            return pad([row.ids for row in rows])

    def epoch() -> Iterator[torch.Tensor]:
        config = own.WorkerConfig(rank=0, world_size=1, num_workers=workers)
        options = {"shuffle_buffer_size": 1000, "max_samples_per_sequence": None, "repeat": False}
        dataset = own.get_train_dataset(
            folder, worker_config=config, batch_size=BATCH, task_encoder=Encoder(), batch_drop_last=False, **options
        )
        return iter(own.get_loader(dataset))

    return epochs(epoch)


def hpcdata(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    """`workers` are threads that make batches ahead; 0: none."""
    return (batch["input_ids"] for batch in _hpcdata(data / "dataset-1", workers))


def hpcdata_1000_parts(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    return (batch["input_ids"] for batch in _hpcdata(data / "dataset-1000", workers))


def hpcdata_baked(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    """The rows of the layout are stored: `combine --bake text`."""
    return (batch["input_ids"] for batch in _hpcdata(_baked(data), workers))


def hpcdata_baked_uint16(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    return (batch["input_ids"] for batch in _hpcdata(_baked(data), workers, ids="uint16"))


def hpcdata_baked_all_keys(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    return (batch["input_ids"] for batch in _hpcdata(_baked(data), workers, keys=None))


def _baked(data: Path) -> Path:
    """The dataset with baked rows, made by the first process that asks."""
    from hpcdata import TokenDataset
    from hpcdata.dataset.baked.adding import bake
    from hpcdata.loading.baking import bakings

    target = data / "dataset-baked"
    if not target.exists():
        building = data / f"dataset-baked.{os.getpid()}"
        shutil.copytree(data / "dataset-1", building)
        bake(TokenDataset(building).manifest, bakings(["text"]))
        building.rename(target)
    return target


def hpcdata_uint16(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    return (batch["input_ids"] for batch in _hpcdata(data / "dataset-1", workers, ids="uint16"))


def hpcdata_all_keys(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    return (batch["input_ids"] for batch in _hpcdata(data / "dataset-1", workers, keys=None))


def hpcdata_mixture(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    """The same samples, as two sources by their sizes."""
    from hpcdata import Mixture, Source

    parts = [("first:75%", "a"), ("end:25%", "b")]
    sources = [Source(dataset=data / "dataset-1", sampling=sampling, name=name) for sampling, name in parts]
    return (batch["input_ids"] for batch in _hpcdata(Mixture(sources, policy="stop_all"), workers))


def hpcdata_packed(data: Path, scratch: Path, workers: int) -> Iterator[Packed]:
    keys = ("input_ids", "cu_seqlens", "index")
    return _packed(_hpcdata(data / "dataset-1", workers, keys=keys, packing=4 * WIDTH, global_batch_size=48))


def hpcdata_packed_all_keys(data: Path, scratch: Path, workers: int) -> Iterator[Packed]:
    return _packed(_hpcdata(data / "dataset-1", workers, keys=None, packing=4 * WIDTH, global_batch_size=48))


def hpcdata_numpy(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    """In a process with HPCDATA_KERNELS=0."""
    return hpcdata(data, scratch, workers)


def hpcdata_numpy_packed(data: Path, scratch: Path, workers: int) -> Iterator[Packed]:
    return hpcdata_packed(data, scratch, workers)


class Packed(NamedTuple):
    """A batch of several samples a row."""

    ids: torch.Tensor
    edges: torch.Tensor
    num_samples: int


def _packed(batches: Iterator[dict[str, torch.Tensor]]) -> Iterator[Packed]:
    return (Packed(batch["input_ids"], batch["cu_seqlens"], len(batch["index"])) for batch in batches)


def _hpcdata(
    dataset: object, workers: int, keys: tuple[str, ...] | None = ("input_ids",), ids: str = "int64", **options: object
) -> Iterator[dict[str, torch.Tensor]]:
    from hpcdata import BackgroundLoader, TokenLoader
    from hpcdata.loading.layouts.named import Text

    layout = Text(ids=ids, **({"keys": keys} if keys else {}))
    options = {"global_batch_size": BATCH, "drop_last": False, "rank": 0, "world_size": 1, **options}
    loader = TokenLoader(dataset, layout=layout, **options)
    return iter(BackgroundLoader(loader, num_ahead=PREFETCH, num_threads=workers) if workers else loader)


_SOURCE = """
#include <stdint.h>
void gather(const uint16_t *ids, const int64_t *starts, const int64_t *ends, const int64_t *rows, int64_t num_rows,
            int64_t width, OUT *out) {
    for (int64_t row = 0; row < num_rows; row++, out += width) {
        const uint16_t *from = ids + starts[rows[row]];
        int64_t length = ends[rows[row]] - starts[rows[row]];
        if (AHEAD && row + AHEAD < num_rows)
            for (int64_t at = starts[rows[row + AHEAD]]; at < ends[rows[row + AHEAD]]; at += 32)
                __builtin_prefetch(ids + at);
        for (int64_t at = 0; at < length; at++) out[at] = from[at];
        for (int64_t at = length; at < width; at++) out[at] = 0;
    }
}
"""


def c_gather(
    data: Path, scratch: Path, workers: int, dtype: torch.dtype = torch.int64, ahead: int = 0
) -> Iterator[torch.Tensor]:
    """The limit: one loop in C, rows known in advance, into memory that is written again and again.

    `ahead`: asks the processor for the row so far ahead, which it does not do by itself as rows are anywhere.
    """
    source, library = scratch / "gather.c", scratch / "gather.so"
    source.write_text(_SOURCE)
    kind = (f"-DOUT={str(dtype).removeprefix('torch.')}_t", f"-DAHEAD={ahead}")
    subprocess.run(["gcc", "-O3", "-march=native", *kind, "-shared", "-fPIC", "-o", library, source], check=True)
    gather = ctypes.CDLL(str(library)).gather
    samples = Samples(data)
    buffers = [torch.empty((BATCH, WIDTH), dtype=dtype) for _ in range(2)]

    def epoch() -> Iterator[torch.Tensor]:
        rows = np.random.default_rng().permutation(len(samples))
        for step, first in enumerate(range(0, len(rows), BATCH)):
            some, out = rows[first : first + BATCH], buffers[step % 2]
            addresses = (ctypes.c_void_p(a.ctypes.data) for a in (samples.ids, samples.starts, samples.ends, some))
            gather(*addresses, ctypes.c_int64(len(some)), ctypes.c_int64(WIDTH), ctypes.c_void_p(out.data_ptr()))
            yield out[: len(some)]

    return epochs(epoch)


def c_gather_uint16(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    return c_gather(data, scratch, workers, torch.uint16)


def c_gather_ahead(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    return c_gather(data, scratch, workers, ahead=2)


def c_gather_ahead_uint16(data: Path, scratch: Path, workers: int) -> Iterator[torch.Tensor]:
    return c_gather(data, scratch, workers, torch.uint16, ahead=2)


PEERS: dict[str, Callable[[Path, Path, int], Iterator[torch.Tensor]]] = {
    peer.__name__: peer
    for peer in (
        *(hpcdata_baked, hpcdata_baked_uint16, hpcdata_baked_all_keys),
        *(hpcdata, hpcdata_1000_parts, hpcdata_uint16, hpcdata_all_keys, hpcdata_mixture),
        *(hpcdata_packed, hpcdata_packed_all_keys, hpcdata_numpy, hpcdata_numpy_packed),
        *(c_gather, c_gather_uint16, c_gather_ahead, c_gather_ahead_uint16, fixed_rows),
        *(
            statefuldataloader,
            statefuldataloader_batched,
            tensordict,
            unidisc,
            grain,
            huggingface,
            webdataset,
            litdata,
            mosaicml,
            megatron,
            energon,
        ),
    )
}


def epochs(make: Callable[[], Iterator[torch.Tensor]]) -> Iterator[torch.Tensor]:
    return itertools.chain.from_iterable(make() for _ in itertools.count())


def check(batches: Iterator[torch.Tensor | Packed], num_samples: int) -> dict[str, int]:
    """One epoch: sum of id times (place in its sample + 1), modulo 2^64; padding is 0 and counts nothing."""
    total = found = 0
    while found < num_samples:
        batch = next(batches)
        if isinstance(batch, Packed):
            edges, ids = batch.edges.to(torch.int64), batch.ids.reshape(-1)
            places = torch.arange(len(ids)) - edges[:-1].repeat_interleave(edges.diff())
        else:
            ids, places = batch.to(torch.int64), torch.arange(WIDTH)
            assert batch.shape[1] == WIDTH, batch.shape
            assert batch.dtype in (torch.int64, torch.uint16), batch.dtype
        total += int((ids * (places + 1)).sum())
        found += _num_samples(batch)
    return {"samples": found, "checksum": total % 2**64}


def _num_samples(batch: torch.Tensor | Packed) -> int:
    return batch.num_samples if isinstance(batch, Packed) else len(batch)


def measure(batches: Iterator[torch.Tensor], seconds: float) -> dict[str, float]:
    """What had been prepared before is not counted. As in a training loop, a batch is held until the next is there."""
    for _ in range(2 * PREFETCH):
        batch = next(batches)
    samples, start = 0, time.perf_counter()
    while (now := time.perf_counter()) - start < seconds:
        batch = next(batches)
        samples += _num_samples(batch)
    with open("/proc/self/status") as status:
        (peak,) = (int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return {"samples_per_s": samples / (now - start), "max_rss_mib": peak / 1024}


def main() -> None:
    peer, data, scratch, workers = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(int(sys.argv[5]))
    scratch.mkdir(parents=True, exist_ok=True)
    batches = PEERS[peer](data, scratch, workers)
    num_samples = len(Samples(data))
    for line in sys.stdin:
        command, *arguments = line.split()
        answer = check(batches, num_samples) if command == "check" else measure(batches, float(arguments[0]))
        print("ANSWER " + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
