"""Paths as people type them: expanded once, kept as they are otherwise.   pytest tests/config/test_places.py"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.cluster.sbatch import require_log_names
from hpcdata.config.compose import compose, override
from hpcdata.config.places import PATH_KEYS
from tests.selection import examples

BOTH = ["data.raw_data_dir=/in", "data.token_output_dir=/out"]


def line(key: str, typed: str) -> list[str]:
    return [*(item for item in BOTH if not item.startswith(key)), f"{key}={typed}"]


def value_of(config: object, key: str) -> object:
    group, name = key.split(".")
    return getattr(getattr(config, group), name)


@pytest.mark.parametrize("key", PATH_KEYS)
@pytest.mark.parametrize("typed", ["~/x y", "$HOME/x y", "${HOME}/x y"])
def test_home_and_variables_are_expanded_in_every_path(key: str, typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert value_of(compose(line(key, typed)), key) == "/home/me/x y"
    assert value_of(override(compose(BOTH), [f"{key}={typed}"]), key) == "/home/me/x y"


def test_each_input_of_a_list_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "/data")
    assert compose(["data.raw_data_dir=[$DATA/a,/b]", BOTH[1]]).data.raw_data_dir == ["/data/a", "/b"]


@pytest.mark.parametrize("key", PATH_KEYS)
@pytest.mark.parametrize("typed", ["$NOT_SET_HERE/x", "${NOT_SET_HERE}/x", "$EMPTY/x"])
def test_a_variable_that_is_not_set_is_refused_by_name(key: str, typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY", "")  # `$EMPTY/out` must not become /out
    with pytest.raises(UserError, match=rf"{key}=.*the variable (NOT_SET_HERE|EMPTY) is not set"):
        compose(line(key, typed))


def test_a_dollar_sign_in_a_name_that_exists_stays(tmp_path: Path) -> None:
    folder = tmp_path / "pay$nothing_of_this_name"
    folder.mkdir()
    assert compose(line("data.raw_data_dir", str(folder))).data.raw_data_dir == str(folder)


@pytest.mark.parametrize("key", PATH_KEYS)
@pytest.mark.parametrize("place", ["s3://bucket/x", "gs://b/x", "hf://datasets/x", "https://host/x", "file:///x"])
def test_places_that_are_not_local_are_refused(key: str, place: str) -> None:
    for ask in (lambda: compose(line(key, place)), lambda: override(compose(BOTH), [f"{key}={place}"])):
        with pytest.raises(UserError, match=f"{key}={place} is remote.*mount it, or copy it"):
            ask()


@settings(deadline=None, max_examples=examples(15))
@given(st.text(st.characters(exclude_characters="\0$", exclude_categories=["Cs"]), min_size=1))
def test_odd_names_arrive_as_they_were_typed(name: str) -> None:
    path = f"/out/{name}"
    config = compose([BOTH[0], f"data.token_output_dir={path}", f"text.tokenizer={path}"])
    assert (config.data.token_output_dir, config.text.tokenizer) == (path, path)


@settings(deadline=None, max_examples=examples(10))
@given(st.text(st.characters(exclude_characters="\0$", exclude_categories=["Cs"]), min_size=1))
def test_other_texts_with_backslashes_and_quotes_arrive_too(name: str) -> None:
    assert compose([*BOTH, f"cluster.job_name=x{name}"]).cluster.job_name == f"x{name}"


@pytest.mark.parametrize("name", ["%j", "100%", "a,b", "a\\b", "it's", 'a"b', "a\nb", "a\tb", "`x`", "$x"])
def test_a_folder_whose_name_slurm_misreads_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="no task could start: use another folder, or a link"):
        require_log_names(Path("/out") / name)


def test_other_folders_are_fine_for_slurm() -> None:
    require_log_names(Path("/out/a b/ünïcode_1.2-3(x)[y]{z}+=@~^&"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [(["a", "null"], None), (["null", "a"], "a"), (["a", "'b c'"], "b c"), (["'b c'", "a"], "a"), (["a", "b"], "b")],
)
def test_the_last_of_several_values_counts(values: list[str], expected: str | None) -> None:
    assert compose([*BOTH, *(f"text.tokenizer={value}" for value in values)]).text.tokenizer == expected
