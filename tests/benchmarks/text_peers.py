"""One way to tokenize the corpus of text.py, as its users run it.

python text_peers.py NAME INPUTS TOKENIZER OUT        does the job, INPUTS: a folder of .json.zst
python text_peers.py NAME-sum INPUTS TOKENIZER OUT    prints "number of ids, their sum, the sum of their squares"
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

NUM_PROCESSES = 2


def hpcdata(inputs: Path, tokenizer: str, out: Path) -> None:
    command = [sys.executable, "-m", "hpcdata.launch", "+experiments=text", f"text.tokenizer={tokenizer}"]
    command += [f"data.raw_data_dir='{inputs}/*.json.zst'", f"data.token_output_dir={out}", "finish.combine=false"]
    command += ["cluster=local", f"cluster.array=0-{NUM_PROCESSES - 1}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def hpcdata_ids(out: Path) -> Iterator[np.ndarray]:
    import numpy as np

    from hpcdata import TokenDataset

    dataset = TokenDataset(out, allow_tmp=True)
    for row in range(len(dataset)):
        yield np.concatenate([span.ids for span in dataset[row].spans])


def engine(inputs: Path, tokenizer: str, out: Path, *, num_passes: int = 1) -> None:
    """The engine alone, on texts in memory, on all cores: prints the seconds of the last pass over them."""
    import gigatoken
    import orjson
    import zstandard

    texts = []
    for path in sorted(inputs.glob("*.json.zst")):
        with open(path, "rb") as file:
            lines = zstandard.ZstdDecompressor().stream_reader(file).read().splitlines()
        texts += [orjson.loads(line)["text"] for line in lines]
    is_json = tokenizer.endswith(".json")
    encoder = gigatoken.Tokenizer(tokenizer) if is_json else gigatoken.Tokenizer.from_sentencepiece(tokenizer)
    encoder.encode_batch(texts[:64])
    for _ in range(num_passes):
        started = time.perf_counter()
        for start in range(0, len(texts), 1024):
            encoder.encode_batch(texts[start : start + 1024])
    print(time.perf_counter() - started)


def datatrove(inputs: Path, tokenizer: str, out: Path) -> None:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    reader = JsonlReader(str(inputs), glob_pattern="*.json.zst", compression="zstd")
    writer = DocumentTokenizer(str(out / "tokens"), tokenizer, eos_token=None, shuffle_documents=False)
    logs = str(out / "logs")
    pipeline = LocalPipelineExecutor([reader, writer], tasks=NUM_PROCESSES, workers=NUM_PROCESSES, logging_dir=logs)
    pipeline.run()


def datatrove_ids(out: Path) -> Iterator[np.ndarray]:
    import numpy as np

    for path in sorted((out / "tokens").glob("*.ds")):
        metadata = path.with_name(path.name + ".metadata").read_text().splitlines()
        size = int(metadata[0].split("|")[-1])
        yield np.fromfile(path, {2: "<u2", 4: "<u4"}[size])


def huggingface(inputs: Path, tokenizer: str, out: Path) -> None:
    from datasets import load_dataset
    from tokenizers import Tokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    encoder = Tokenizer.from_file(tokenizer)

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return {"ids": [row.ids for row in encoder.encode_batch_fast(batch["text"], add_special_tokens=False)]}

    files = sorted(map(str, inputs.glob("*.json.zst")))
    data = load_dataset("json", data_files=files, split="train", cache_dir=str(out / "cache"))
    data = data.map(encode, batched=True, num_proc=NUM_PROCESSES, remove_columns=["text"], load_from_cache_file=False)
    data.save_to_disk(str(out / "tokens"), num_proc=NUM_PROCESSES)


def huggingface_ids(out: Path) -> Iterator[np.ndarray]:
    from datasets import load_from_disk

    for row in load_from_disk(str(out / "tokens")).with_format("numpy"):
        yield row["ids"]


JOBS: dict[str, Callable[[Path, str, Path], None]] = {
    "hpcdata": hpcdata,
    "engine": engine,
    "engine-again": functools.partial(engine, num_passes=2),
    "datatrove": datatrove,
    "huggingface": huggingface,
}
IDS = {"hpcdata": hpcdata_ids, "datatrove": datatrove_ids, "huggingface": huggingface_ids}


def main() -> None:
    name, inputs, tokenizer, out = sys.argv[1:5]
    if not name.endswith("-sum"):
        JOBS[name](Path(inputs), tokenizer, Path(out))
        return
    import numpy as np

    count = total = squares = 0
    for ids in IDS[name.removesuffix("-sum")](Path(out)):
        wide = ids.astype(np.uint64)
        count, total, squares = count + len(ids), total + int(wide.sum()), squares + int((wide * wide).sum())
    print(json.dumps([count, total, squares]))


if __name__ == "__main__":
    main()
