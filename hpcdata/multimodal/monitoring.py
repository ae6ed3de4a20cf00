"""Monitor: how long a training waits for its data and what goes into making it, as JSON lines or for TensorBoard.

    monitor = Monitor(loader, jsonl="data.jsonl", every=10)              # or writer=SummaryWriter("runs/1")
    for batch in loader:
        ...
        monitor.step()

Every `every` steps it writes, of the steps since it last wrote:

    step             batches that this process was given
    seconds          of each step, on average
    waited_s         of these, waiting for a batch
    waited_share     0 to 1
    read_s, decode_s, resize_s, text_s, prepare_s, collate_s ...     seconds of work of each step, summed over threads
    samples          examples a step
    rejected         examples left out since the beginning, in all

It changes nothing: neither batches nor states.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Protocol

from hpcdata.base.errors import UserError
from hpcdata.multimodal.loading.loader import MultimodalLoader


class Writer(Protocol):
    """torch.utils.tensorboard.SummaryWriter, and whatever has its method."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...


class Monitor:
    """See the module. `rank`: only this rank writes, None: each does."""

    def __init__(
        self,
        loader: MultimodalLoader,
        *,
        jsonl: str | Path | None = None,
        writer: Writer | None = None,
        every: int = 10,
        rank: int | None = 0,
        prefix: str = "data/",
    ) -> None:
        if every < 1 or (jsonl is None and writer is None):
            raise UserError(f"a monitor needs jsonl=PATH or writer=..., and every={every} to be at least 1")
        self._loader, self._jsonl, self._writer, self._every = loader, jsonl, writer, every
        self._is_mine, self._prefix = rank is None or loader.rank == rank, prefix
        self.num_steps = 0
        self.latest: dict[str, float] = {}
        """What was written last."""
        self._before = self._now()

    def step(self) -> None:
        """To be called once a step, when the batch was used."""
        self.num_steps += 1
        if self.num_steps % self._every:
            return
        now, before = self._now(), self._before
        self._before = now
        self.latest = self._figures(before, now)
        if self._is_mine:
            self._write(self.latest)

    def _now(self) -> dict[str, Any]:
        loader = self._loader
        return {
            "time": time.perf_counter(),
            "waited": loader.waits.first_s + loader.waits.total_s,
            "samples": loader.num_samples,
            "phases": loader.times.seconds(),
        }

    def _figures(self, before: dict[str, Any], now: dict[str, Any]) -> dict[str, float]:
        every = self._every
        seconds, waited_s = ((now[name] - before[name]) / every for name in ("time", "waited"))
        figures: dict[str, float] = {"step": self.num_steps, "seconds": seconds, "waited_s": waited_s}
        figures["waited_share"] = min(1.0, waited_s / seconds) if seconds > 0 else 0.0
        for name, total in now["phases"].items():
            if name != "wait":
                figures[f"{name}_s"] = (total - before["phases"].get(name, 0.0)) / every
        figures["samples"] = (now["samples"] - before["samples"]) / every
        figures["rejected"] = sum(self._loader.rejects.values())
        return figures

    def _write(self, figures: dict[str, float]) -> None:
        if self._jsonl is not None:
            with open(self._jsonl, "a", encoding="utf-8") as file:
                file.write(json.dumps(figures) + "\n")
        if self._writer is not None:
            for name, value in figures.items():
                if name != "step":
                    self._writer.add_scalar(f"{self._prefix}{name}", value, self.num_steps)
