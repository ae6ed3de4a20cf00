"""Copies to a GPU and back that run beside other work: from and to pinned memory, waited for when a result is used."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """tensor: on the CPU, and not to be changed afterwards."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def to_cpu(tensor: Tensor) -> Callable[[], Tensor]:
    """Begins to copy a result that may still be computed; what it returns waits for it."""
    if tensor.device.type != "cuda":
        return lambda: tensor
    copy = tensor.to("cpu", non_blocking=True)  # into pinned memory, by torch's own choice
    copied = torch.cuda.current_stream(tensor.device).record_event()

    def wait() -> Tensor:
        copied.synchronize()
        return copy

    return wait
