"""Datasets by name.   pytest tests/multimodal/datasets/test_registry.py"""

from __future__ import annotations

import pytest

from hpcdata.base.errors import UserError
from hpcdata.multimodal import DatasetBase, get_dataset, register
from hpcdata.multimodal.datasets import registry


@pytest.fixture(autouse=True)
def _no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ENTRIES", {})


class Few(DatasetBase):
    def load(self):
        return [{"text": self.split}]


def test_a_name_is_found_by_its_letters_and_digits_alone() -> None:
    assert register("tiny_cap_2", Few) is Few
    for name in ("tiny_cap_2", "TinyCap2", "tinycap2", "TINY-CAP_2"):
        assert get_dataset(name, split="validation")[0] == {"text": "validation"}
    assert get_dataset("tinycap2", "train", sample=0).data == []  # type: ignore[attr-defined]


def test_a_decorator_registers_classes_and_functions() -> None:
    @register("one")
    class One(Few):
        pass

    @register("two")
    def two(split: str | None, number: int = 1) -> Few:
        return Few(f"{split}{number}")

    assert isinstance(get_dataset("one"), One)
    assert get_dataset("two", number=7)[0] == {"text": "train7"}
    assert registry.registered() == ["one", "two"]


def test_a_name_has_one_meaning_and_a_module_may_be_loaded_twice() -> None:
    register("few", Few)
    register("Few", Few)
    with pytest.raises(UserError, match=r"the name f_e_w is taken, by .*Few: choose another one"):
        register("f_e_w", lambda split: Few())
    with pytest.raises(UserError, match="no letter and no digit"):
        register("_", Few)


def test_an_unknown_name_is_refused_with_those_that_are_near() -> None:
    with pytest.raises(
        UserError,
        match="there is no dataset x: there are those of hpcdata download --list; a path of data is a name too",
    ):
        get_dataset("x")
    for name in ("pixmo_cap", "pixmo_count", "chart_qa"):
        register(name, Few)
    with pytest.raises(UserError, match=r"no dataset pixmo_capp: did you mean pixmo_cap, pixmo_count, .*\?"):
        get_dataset("pixmo_capp")
    with pytest.raises(UserError, match="known are chart_qa, pixmo_cap, pixmo_count and those of"):
        get_dataset("zzz")
