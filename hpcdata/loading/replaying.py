"""Replay: what a run was fed at given steps, as digests.

    python -m hpcdata.replay /out --state loader.json --steps 100:110 --world-size 8

Batches are a pure function of data, settings, epoch and step, so they can be made again at any time: a person can prove
that a resumed run saw what it should have. `global` is the digest of the whole batch and the same for every world size;
`rank` lines are those of the shares. A training script gets the same numbers for what it was fed from `batch_digest`:

    log.info("step %d fed %s", step, batch_digest([batch]))

The state is what `TokenLoader.state_dict()` returned, as JSON or as `torch.save` wrote it; it says the settings, also
packing and order, so that only layout options must be repeated. A mixture is given as a JSON file in place of the
dataset, with the arguments that the run gave: {"sources": [{"dataset": "/pairs", "weight": 3}, ...], "policy": ...}.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcdata.base.errors import UserError

if TYPE_CHECKING:
    import torch

    from hpcdata.dataset.dataset import TokenDataset
    from hpcdata.loading.loader import TokenLoader
    from hpcdata.loading.selecting import SelectedDataset
    from hpcdata.loading.token_streams import Mixture, Source
    from hpcdata.order.looping import Looping

_KEYS: tuple[str, ...] = (
    "input_ids",
    "attention_mask",
    "modality",
    "labels",
    "position_ids",
    "segment_ids",
    "index",
    "source",
)
_KEYS += ("subsegment_ids", "loss_masks", "images", "image_masks", "image_input_idx", "pooled_patches_idx")
"""What has a row, or a value, for each sample or row of the batch: the rest follows from these."""
_MAX_STATE_BYTES = 2**24


@dataclass(frozen=True, kw_only=True)
class StepDigest:
    """What one step was fed."""

    epoch: int
    step: int
    whole: str
    ranks: tuple[str, ...]
    first_index: int
    """Plan index of the first sample; of raw examples, its row within those of all datasets."""


def batch_digest(shares: Sequence[Mapping[str, torch.Tensor]]) -> str:
    """Digest of the shares of a batch in the order of their ranks: 32 hex digits, the same however it is shared out."""
    digest = hashlib.blake2b(digest_size=16)
    for key in _KEYS:
        if key in shares[0]:
            digest.update(f"{key} {shares[0][key].dtype}\n".encode())
            for share in shares:
                digest.update(share[key].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def replay(loaders: Sequence[Looping[Any]], epoch: int, steps: range) -> Iterator[StepDigest]:
    """What steps of an epoch consist of. `loaders`: one for each rank, in order; they are not moved."""
    for step in steps:
        shares = [loader.batch_at(epoch, step) for loader in loaders]
        yield StepDigest(
            epoch=epoch,
            step=step,
            whole=batch_digest(shares),
            ranks=tuple(batch_digest([share]) for share in shares),
            first_index=_first_index(loaders[0], shares[0], epoch, step),
        )


def _first_index(loader: Looping[Any], batch: Mapping[str, torch.Tensor], epoch: int, step: int) -> int:
    found = batch["index"].tolist() if "index" in batch else loader.rows(epoch, step).tolist()
    return int(found[0]) if found else -1


def account_of(loader: Looping[Any]) -> dict[str, dict[str, float]]:
    """What each source has contributed up to where the loader stands, and `total`, as plain values."""
    account = loader.account()
    found = {f"source {name}": dataclasses.asdict(values) for name, values in account.items()}
    if (total := getattr(account, "total", None)) is not None:
        found["total"] = dataclasses.asdict(total)
    for values in found.values():
        values.pop("waited_s", None)  # of the training's own process
        rejected = values.pop("rejected", {})
        values.update({f"rejected {reason}": number for reason, number in rejected.items()})
    return found


def read_state(path: str | Path) -> dict[str, Any]:
    """A loader state from a file: JSON, or torch.save of the state or of a mapping that has it as an entry."""
    file = Path(path)
    if not file.is_file():
        raise UserError(f"{file} does not exist: expected a loader state, as JSON or saved by torch")
    if file.stat().st_size > _MAX_STATE_BYTES:
        raise UserError(f"{file} is larger than {_MAX_STATE_BYTES} bytes: save the loader state by itself")
    found = _decode(file)
    candidates = [found, *(found.values() if isinstance(found, dict) else ())]
    for candidate in candidates:
        if isinstance(candidate, dict) and isinstance(candidate.get("settings"), dict) and "step" in candidate:
            return candidate
    raise UserError(f"{file} holds no loader state: save what TokenLoader.state_dict() returned")


def _decode(file: Path) -> Any:
    data = file.read_bytes()
    if data.lstrip()[:1] == b"{":
        try:
            return json.loads(data)
        except ValueError as error:
            raise UserError(f"{file} is not JSON: {error}") from None
    import torch

    try:
        return torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:
        raise UserError(f"{file} is neither JSON nor what torch.save wrote: {type(error).__name__}") from None


def make_loaders(options: argparse.Namespace, state: dict[str, Any] | None) -> list[TokenLoader]:
    from hpcdata.loading.layouts.named import LAYOUTS
    from hpcdata.loading.loader import TokenLoader

    settings = state["settings"] if state else {}
    layout = options.layout or settings.get("layout", "t2i")
    size = options.global_batch_size or settings.get("global_batch_size")
    if layout not in LAYOUTS:
        raise UserError(f"--layout is {layout!r}, expected one of {', '.join(LAYOUTS)}")
    if not size:
        raise UserError("the size of a batch is not known: pass --global-batch-size, or --state")
    dataset = _open(options.dataset)
    loaders = [
        TokenLoader(
            dataset,
            global_batch_size=size,
            layout=LAYOUTS[layout](**_layout_options(options.layout_options)),
            packing=_rebuilt(settings.get("packing")),
            order=_rebuilt(settings.get("order")),
            seed=settings.get("seed", options.seed),
            shuffle=settings.get("shuffle", not options.no_shuffle),
            drop_last=settings.get("drop_last", True),
            weights_ledger=options.weights_ledger,
            rank=rank,
            world_size=options.world_size,
        )
        for rank in range(options.world_size)
    ]
    if state:
        for loader in loaders:
            loader.load_state_dict(state)
    return loaders


def _open(path: str) -> TokenDataset | Mixture:
    from hpcdata.dataset.dataset import TokenDataset
    from hpcdata.loading.token_streams import Mixture
    from hpcdata.order.mixing.schedule import WeightsFrom

    if not path.endswith(".json"):
        return TokenDataset(path)
    try:
        values = json.loads(Path(path).read_bytes())
        if "sources" not in values:
            return _selection(values.pop("dataset"), values.pop("rows"))
        schedule = [WeightsFrom(**item) for item in values.pop("schedule", ())]
        return Mixture([_source(source) for source in values.pop("sources")], schedule=schedule, **values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{path} is no mixture ({type(error).__name__}: {error}): expected {{"sources": [{{"dataset": PATH, '
            '"weight": 3}, ...], "policy": "repeat"}'
        ) from None


def _source(values: dict[str, Any]) -> Source:
    """`rows`: a .npy file with those of a selection."""
    from hpcdata.loading.token_streams import Source

    rows = values.pop("rows", None)
    return Source(**values) if rows is None else Source(**{**values, "dataset": _selection(values["dataset"], rows)})


def _selection(path: str, rows_file: str) -> SelectedDataset:
    """Raises ValueError for what are no rows of the dataset, ascending."""
    from hpcdata.dataset.dataset import TokenDataset
    from hpcdata.loading.selecting import SelectedDataset

    dataset, rows = TokenDataset(path), np.load(rows_file, allow_pickle=False)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows) or (rows[1:] <= rows[:-1]).any():
        raise ValueError(f"{rows_file} has no ascending integers")
    if rows[0] < 0 or rows[-1] >= len(dataset):
        raise ValueError(f"{rows_file} has rows {rows[0]} to {rows[-1]} of {len(dataset)} samples")
    return SelectedDataset(dataset, rows.astype(np.int64), {})


def _rebuilt(text: str | None) -> Any:
    """The packing or order that a state shows as `text`. Raises UserError for what is not one of hpcdata's."""
    from hpcdata.order import order, packing

    known: tuple[type, ...] = (packing.BestFit, packing.Concat, packing.Buckets)
    known += (order.BlockOrder, order.ShuffledOrder, order.SequentialOrder)
    if text is None:
        return None
    try:
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call)
        kind = {kind.__name__: kind for kind in known}[ast.unparse(call.func)]
        options = {str(option.arg): ast.literal_eval(option.value) for option in call.keywords}
        return kind(**({"rest": "pad"} if kind is packing.Buckets else {}) | options)
    except (SyntaxError, AssertionError, KeyError, ValueError, TypeError):
        raise UserError(f"the state is of a loader with {text[:200]}: replay it from Python, with replay") from None


def _layout_options(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UserError(f'--layout-options {text!r} is not JSON ({error}): expected {{"block_size": 128}}') from None
    if not isinstance(values, dict):
        raise UserError(f'--layout-options {text!r}: expected an object such as {{"block_size": 128}}')
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def steps_between(text: str | None, loader: Looping[Any], epoch: int) -> range:
    """A:B of the epoch; by default from where the loader stands to the end."""
    first, colon, last = (text or "").partition(":")
    try:
        start = int(first) if first else loader.step
        stop = int(last) if last else (loader.num_steps(epoch) if colon or not text else start + 1)
    except ValueError:
        raise UserError(f"--steps {text!r}: expected A:B, such as 100:110") from None
    if not 0 <= start < stop or not loader.has_step(epoch, stop - 1):
        raise UserError(f"--steps {start}:{stop} of an epoch of {loader.num_steps(epoch)} steps")
    return range(start, stop)
