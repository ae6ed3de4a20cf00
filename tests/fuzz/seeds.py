"""Well-formed inputs for the targets: a fuzzer starts from them, and each must pass as it is."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import tarfile
import tempfile
from pathlib import Path

import zstandard

from hpcdata.base.files import to_json
from hpcdata.config.values import to_mapping
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.shards import shard
from hpcdata.shards.reject_ledger import REJECTS
from tests import made

PAIR = (
    b'{"image_path": "a.png", "text": "one"}\n'
    b'{"image": ["a"], "conversations": [{"from": "human", "value": "<image>"}]}\n'
)
MEDIA = (
    b'{"images": [{"path": "a.png", "bytes": null}], "messages": [{"role": "user", "content": "<image>hi"}]}\n'
    b'{"messages": [{"role": "user", "content": [{"type": "image", "image": "a.png"}, "b"]}]}\n'
    b'{"image_url": "data:image/png;base64,aGk=", "text": "c"}\n{"video": "a.mp4", "text": "d"}\n'
    b'{"image": "../a.png", "text": "e"}\n{"img": "https://host/a.png", "text": "f"}\n{"Image": "a.png", "text": "g"}\n'
)


def seeds() -> dict[str, list[bytes]]:
    """Target -> inputs."""
    tars = [_tar(tar_format) for tar_format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        plan = made.run(run, 20, unfinished={1: 3})
        combine(run, CombineOptions(allow_tmp=True))
        committed, (attempt,) = run / "shards/00000-of-00002", run.glob("shards/tmp_*")
        local = dataclasses.replace(
            plan, config=dataclasses.replace(plan.config, data=dataclasses.replace(plan.config.data, n_train_samples=9))
        )
        assert to_mapping(local.config)
        row = (committed / REJECTS).read_bytes()
        return {
            "tar": tars,
            "tar_gz": [gzip.compress(tars[0], mtime=0)],
            "jsonl": [PAIR, b"\xef\xbb\xbf" + PAIR],
            "media": [PAIR, MEDIA],
            "tables": [_parquet(), _pictures()],
            "csv": [b'file_name,text\na.png,"one, two"\n'],
            "jsonl_gz": [gzip.compress(PAIR, mtime=0)],
            "text_zst": [zstandard.ZstdCompressor().compress(b'{"text": "a"}\n{"content": "b"}\n')],
            "array": [b'[{"image": "a.png", "text": "x"}, {"text": "y"}]'],
            "listing": [
                b'{"key": "a", "image": "a.png", "text": "a.txt"}\n{"key": "b", "image": null, "text": null}\n'
            ],
            "document": [b"one\n\ntwo\n", b"\xff\xfe"],
            "parquet": [_parquet()],
            "plan": [plan.to_json(), local.to_json()],
            "progress": [(attempt / shard.PROGRESS).read_bytes()],
            "shard": [(committed / shard.SHARD).read_bytes()],
            "manifest": [(run / "dataset/manifest.json").read_bytes()],
            "wids": [to_json({"wids_version": 1, "shardlist": [{"url": "a.tar", "nsamples": 3}]})],
            "rejects": [row, row.replace(b"}", b', "retry": 1}')],
            "records": [(run / "combined.json").read_bytes(), b'{"event": "start", "time": 1.5}\n'],
        }


def _tar(tar_format: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name in ("a.png", "a.txt", "b" * 60 + "/" + "b" * 60 + ".jpg", "c.json"):
            info = tarfile.TarInfo(name)
            data = json.dumps({"text": name}).encode()
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _pictures() -> bytes:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    columns = {"image": [{"bytes": b"a picture", "path": "a.png"}, None], "text": ["one", "two"], "n": [1, 2]}
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


def _parquet() -> bytes:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one", None, "three"]}), buffer)
    return buffer.getvalue()
