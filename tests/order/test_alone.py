"""python -m pytest tests/order/test_alone.py

The room stands alone: a loader of raw examples (raw.py) that has nothing but hpcdata.order.
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.order.packing import BestFit
from tests.order.raw import Measured, RawLoader
from tests.selection import examples

ROOT = Path(__file__).parent.parent.parent
LENGTH, CROPS = 100, 12


def sources() -> list[Measured]:
    rng = np.random.default_rng(5)
    captions = Measured(
        name="captions", lengths=rng.integers(1, 40, 90).tolist(), crops=rng.integers(1, 8, 90).tolist(), weight=3
    )
    texts = Measured(name="texts", lengths=rng.integers(1, 101, 37).tolist(), crops=[0] * 37, weight=1)
    return [captions, texts]


def ranks(world_size: int, **options) -> list[RawLoader]:
    options = {"size": 12, "packing": BestFit(length=LENGTH, max_images=CROPS, window=32), **options}
    return [RawLoader(sources(), rank=rank, world_size=world_size, **options) for rank in range(world_size)]


def step_of(loaders):
    return [row for loader in loaders for row in next(iter(loader))]


def catch_up(canonical: RawLoader, loader: RawLoader) -> None:
    """Past the last steps of an epoch that so many ranks leave out, as they have fewer rows."""
    while (canonical.epoch, canonical.step) != (loader.epoch, loader.step):
        assert len(step_of([canonical])) < loader.world_size


@settings(max_examples=examples(25), deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1, 2, 3, 4]), st.integers(0, 5)), min_size=1, max_size=5))
def test_kills_and_other_world_sizes_lose_and_repeat_nothing(legs):
    """Legs of (world size, steps until the kill): the same rows as one process that is never interrupted."""
    (canonical,) = ranks(1)
    state = json.dumps(canonical.state_dict())
    for world_size, num_steps in legs:
        loaders = ranks(world_size)
        for loader in loaders:
            loader.load_state_dict(json.loads(state))
        for _ in range(num_steps):
            catch_up(canonical, loaders[0])
            assert step_of(loaders) == step_of([canonical])
        catch_up(canonical, loaders[0])
        states = {json.dumps(loader.state_dict()) for loader in loaders}
        assert states == {json.dumps(canonical.state_dict())}
        state = states.pop()
        assert len(state) < 1024
        assert loaders[0].account() == canonical.account()


def test_an_epoch_keeps_to_both_budgets_and_holds_what_its_schedule_says():
    (loader,) = ranks(1)
    seen: Counter[int] = Counter()
    while loader.epoch == 0:
        for row in step_of([loader]):
            rows = [number for number, _ in row]
            assert loader.lengths[rows].sum() <= LENGTH
            assert loader.crops[rows].sum() <= CROPS
            seen.update(rows)
    counts = loader.stream.schedule(0).counts(loader.stream.num_samples(0))
    assert [sum(seen[row] for row in range(90)), sum(seen[row] for row in range(90, 127))] == counts
    assert set(seen) == set(range(127))
    account = loader.account()
    assert [account[name]["examples"] for name in ("captions", "texts")] == counts
    assert account["captions"]["crops"] == sum(int(loader.crops[row]) * times for row, times in seen.items())


def test_weights_change_in_the_middle():
    (loader,), others = ranks(1), ranks(3)
    for loaders in ([loader], others):
        for _ in range(2):
            step_of(loaders)
        for one in loaders:
            one.set_weights({"captions": 0, "texts": 1})
    for _ in range(3):
        assert step_of([loader]) == step_of(others)
    late = step_of([loader])
    assert all(number >= 90 for row in late for number, _ in row)


def test_a_state_of_other_budgets_is_refused():
    (loader,) = ranks(1)
    (other,) = ranks(1, packing=BestFit(length=LENGTH, max_images=CROPS + 1, window=32))
    with pytest.raises(UserError, match=r"saved with packing=.*max_images=12"):
        other.load_state_dict(loader.state_dict())


def test_nothing_of_tokens_is_imported():
    """Neither torch nor a room that knows tokens, whatever of hpcdata.order is used."""
    code = (
        "import importlib, pkgutil, sys\n"
        "import hpcdata.order\n"
        "for module in pkgutil.iter_modules(hpcdata.order.__path__):\n"
        "    importlib.import_module('hpcdata.order.' + module.name)\n"
        "from tests.order.test_alone import ranks, step_of\n"
        "assert len(step_of(ranks(4))) == 12\n"
        "names = {'.'.join(name.split('.')[:2]) for name in sys.modules}\n"
        "print(*sorted(name for name in names if name.startswith('hpcdata.') or name in ('torch', 'tensordict')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["hpcdata.base", "hpcdata.native", "hpcdata.order"]
