"""python -m pytest tests/loading/test_kept_states.py

States that were saved before the order had a room of its own: they are still made, and still resumed, exactly.
`kept_states.json` was recorded by the code of that time (commit 3d890e9) from the loaders below.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from hpcdata import BestFit, Buckets, Concat, Interleaved, Mixture, Source, TokenLoader
from hpcdata.samples import Example
from tests.loading import made

KEPT = json.loads(Path(__file__).with_name("kept_states.json").read_text())
OPTIONS = {
    "plain": {},
    "blocks": {"order": "blocks:4x4"},
    "packed": {"packing": BestFit(length=40, window=32)},
    "concat": {"packing": Concat(length=20, window=30), "layout": "text"},
    "buckets": {"packing": Buckets(multiple=8, window=60, rest="pad")},
    "mixture": {},
    "mixture_packed": {"packing": BestFit(length=40, window=32)},
}


def make_folder(root: Path, name: str, num_samples: int, seed: int) -> Path:
    """Texts of up to 8 ids, with none to two images of 4."""
    rng = np.random.default_rng(seed)
    examples = []
    for row in range(num_samples):
        spans = [made.text(*rng.integers(0, 32000, rng.integers(0, 9)))]
        spans += [made.image(*rng.integers(0, 16384, 4)) for _ in range(row % 3)]
        examples.append(Example(index=row, key=str(row), spans=tuple(spans)))
    return made.make_dataset(root / name, made.split(examples), content_digest=name.ljust(64, "0"))


@pytest.fixture(scope="module")
def make_loader(tmp_path_factory):
    root = tmp_path_factory.mktemp("kept")
    first, second = make_folder(root, "first", 120, 1), make_folder(root, "second", 90, 2)

    def make(name: str) -> TokenLoader:
        options = {"layout": Interleaved(max_length=20, too_long="skip"), **OPTIONS[name]}
        sources = [
            Source(dataset=first, weight=3, order="blocks:4x4"),
            Source(dataset=second, weight=1, sampling="random:50%", max_repeats=2),
        ]
        dataset = Mixture(sources, policy="stop_all") if name.startswith("mixture") else first
        return TokenLoader(dataset, global_batch_size=4, seed=5, rank=0, world_size=1, **options)

    return make


@pytest.mark.parametrize("name", OPTIONS)
def test_a_kept_state_is_resumed_exactly(make_loader, name):
    loader, kept = make_loader(name), KEPT[name]
    loader.load_state_dict(kept["state"])
    batches = iter(loader)
    assert [next(batches)["index"].tolist() for _ in kept["next"]] == kept["next"]
    found = {source: vars(account) for source, account in loader.account().items()}
    for source, account in kept["account"].items():
        assert found[source] | account == found[source]


@pytest.mark.parametrize("name", OPTIONS)
def test_the_same_state_is_made_again(make_loader, name):
    loader = make_loader(name)
    begun = loader.state_dict()
    begun["settings"].pop("order_of_steps", None)  # a run that began then
    loader.load_state_dict(begun)
    batches = iter(loader)
    for _ in range(7):
        next(batches)
    if name.startswith("mixture"):
        loader.set_weights({"first": 1, "second": 2})
        for _ in range(3):
            next(batches)
    assert json.dumps(loader.state_dict()) == json.dumps(KEPT[name]["state"])
