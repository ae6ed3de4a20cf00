"""The examples of a dataset -> a page in a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hpcdata.base import files
from hpcdata.base.errors import UserError
from hpcdata.multimodal.gallery.page import render
from hpcdata.multimodal.gallery.showing import Figures, Look, items_of, show
from hpcdata.order.seeding import example_seed


class Written(NamedTuple):
    path: Path
    num_shown: int
    mean_tokens: float
    mean_crops: float
    rejects: Counter[str]
    """By reason."""


def write_page(
    dataset: Any,
    preprocessor: Any,
    folder: str | Path,
    *,
    name: str,
    num_examples: int = 100,
    shuffle: bool = False,
    seed: int = 0,
    look: Look | None = None,
    file_name: str = "index.html",
) -> Written:
    """Writes FOLDER/index.html, which opens by itself, without a network. The folder is made where there is none.

    Each example has the randomness that a DeterministicDataset of this seed gives it in its first epoch.
    """
    if num_examples < 1:
        raise UserError(f"num_examples={num_examples}, expected at least 1")
    items, entries, made, rejects = items_of(dataset, num_examples, shuffle=shuffle, seed=seed), [], [], Counter[str]()
    for item in items:
        entry, figures = show(dataset, item, preprocessor, example_seed(seed, 0, item, len(dataset)), look or Look())
        entries.append(entry)
        if figures is None:
            rejects[entry.reject.partition(":")[0]] += 1
        else:
            made.append(figures)
    mean_tokens, mean_crops = _mean([one.num_tokens for one in made]), _mean([one.num_crops for one in made])
    facts = [
        f"{len(items)} of {len(dataset)} examples{', chosen at random' if shuffle else ''}; "
        f"on average {mean_tokens:.1f} tokens, {_learned(made):.1f} of them learned, and {mean_crops:.1f} crops",
        *([f"rejected: {', '.join(f'{count} {reason}' for reason, count in rejects.items())}"] if rejects else []),
    ]
    path = Path(folder) / file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(path, render(entries, title=name, facts=facts).encode("utf-8", "backslashreplace"))
    return Written(path, len(items), mean_tokens, mean_crops, rejects)


def _learned(made: Sequence[Figures]) -> float:
    return _mean([one.num_learned for one in made])


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values) if values else 0.0
