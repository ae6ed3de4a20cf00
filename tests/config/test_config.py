"""Configuration: unknown keys and wrong types fail, command lines compose.   pytest tests/config/test_config.py"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from hpcdata.base.errors import UserError
from hpcdata.config import compose, values
from hpcdata.config import schema as config
from hpcdata.config.help import describe_keys
from tests.selection import examples

PATHS = ["data.raw_data_dir=/in", "data.token_output_dir=/out"]
SEED = shlex.split(
    """+experiments='[webdataset,tokenize,vq16_t2i]' data.token_output_dir="/path/to/token_output_dir"
    data.resolution=512 data.use_chameleon=false loader.batch_size=16
    data.raw_data_dir='/path/to/cambrian/jsons/Cambrian10M.jsonl' +model.text_vocab_size=32001
    data.img_token_shift=32001 +data.use_identity_collate=true loader.num_workers=2 data.split_dataset=true
    +data.save_tmp_interval=3600 +data.use_slow_tokenizer=true +data.add_image_token=true"""
)


def test_the_seeds_command_line_composes_word_for_word() -> None:
    result = compose.compose(SEED)
    assert (result.image.tokenizer, result.data.resolution, result.data.save_tmp_interval) == ("vq16_t2i", 512, 3600.0)
    assert (result.model.text_vocab_size, result.data.img_token_shift) == (32001, 32001)
    assert result.data.add_image_token
    assert result.data.use_slow_tokenizer
    assert result.data.use_identity_collate


@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_a_leading_plus_for_a_key_that_exists_is_accepted(sign: str) -> None:
    assert compose.compose([*PATHS, f"{sign}data.n_train_samples=200"]).data.n_train_samples == 200


@pytest.mark.parametrize(
    "value",
    [
        "/data/cc3m-{0000..0575}.tar",
        "/data/{a,b}/x y.tar",
        "/data/ai2d(cauldron,llava_format).json",
        "/data/*.tar",
        "/it's/a=b.tar",
        "/data/[0-9].tar",
    ],
)
def test_paths_need_no_second_layer_of_quotes(value: str) -> None:
    assert compose.compose([f"data.raw_data_dir={value}", PATHS[1]]).data.raw_data_dir == value


def test_what_a_shell_makes_of_braces_is_named_so() -> None:
    with pytest.raises(UserError, match=r"is given 2 times, /in/0\.tar and so on: quote braces"):
        compose.compose(["data.raw_data_dir=/in/0.tar", "data.raw_data_dir=/in/1.tar", PATHS[1]])


def test_lists_of_inputs_and_quoted_values_compose() -> None:
    assert compose.compose(["data.raw_data_dir=[/a,/b]", PATHS[1]]).data.raw_data_dir == ["/a", "/b"]
    names = ["ai2d(cauldron,llava_format)/x.json", "GeoQA+(MathV360K), é/{a,{b,c}}.json"]
    assert compose.compose([f"data.raw_data_dir=[{names[0]}, a, b]", PATHS[1]]).data.raw_data_dir == [
        names[0],
        "a",
        "b",
    ]
    assert compose.compose([f"data.raw_data_dir=[{names[1]}]", PATHS[1]]).data.raw_data_dir == names[1].split(", ")
    assert compose.compose(["data.raw_data_dir='/a b'", PATHS[1]]).data.raw_data_dir == "/a b"


def test_array_notation_of_slurm_composes() -> None:
    assert compose.compose([*PATHS, "cluster=slurm", "cluster.array=0-100%25"]).cluster.array == "0-100%25"


def test_more_sbatch_options_are_passed_through() -> None:
    result = compose.compose([*PATHS, "cluster=slurm", "cluster.additional_parameters.reservation=mine"])
    assert result.cluster.additional_parameters == {"reservation": "mine"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.resolutoin=3", "unknown configuration key data.resolutoin: did you mean data.resolution?"),
        ("save_tmp_interval=3", "did you mean data.save_tmp_interval?"),
        ("data.resolution=abc", "data.resolution='abc': expected int"),
        ("data.resolution=1.5", "data.resolution=1.5: expected int"),
        ("data.resolution=true", "data.resolution=True: expected int"),
        ("data.source=tar", "data.source='tar': expected one of auto, webdataset, jsonl, folder, text"),
        ("+experiments=foo", "experiments=foo: there is no such preset: there are"),
        ("cluster=slrm", "cluster=slrm: there is no such preset: did you mean slurm?"),
        ("data.raw_data_dir=/other", "is given 2 times, /in and so on: quote braces"),
        ("hello", "'hello' is not an override: expected key=value"),
    ],
)
def test_mistakes_are_one_clear_line(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        compose.compose([*PATHS, override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_required_key_is_named() -> None:
    with pytest.raises(UserError, match=r"data\.raw_data_dir is required"):
        compose.compose(["data.token_output_dir=/out"])


@pytest.mark.parametrize("name", [path.stem for path in (compose.config_folder() / "experiments").glob("*.yaml")])
def test_every_experiment_composes(name: str) -> None:
    compose.compose([f"+experiments={name}", *PATHS])


def test_mappings_round_trip() -> None:
    result = compose.compose(SEED)
    assert values.from_mapping(values.to_mapping(result)) == result


def test_every_key_says_whether_it_changes_output_bytes() -> None:
    semantic = config.RunConfig().semantic_fields()
    assert "data.resolution" in semantic
    assert not {"cluster.partition", "data.save_tmp_interval", "loader.num_workers", "data.token_output_dir"} & set(
        semantic
    )


def test_a_key_that_was_added_later_counts_once_it_leaves_its_default() -> None:
    """Runs that were begun without it have the fingerprint that they had."""
    default, changed = (compose.compose([*PATHS, f"image.rule={rule}"]) for rule in ("white", "liquid"))
    assert "image.rule" not in default.semantic_fields()
    assert default.semantic_fields() == compose.compose(PATHS).semantic_fields()
    assert changed.semantic_fields() == {**default.semantic_fields(), "image.rule": "liquid"}
    assert default.semantic_fields(with_added=True)["image.rule"] == "white"


def test_help_marks_a_key_that_was_added_later_as_one_that_changes_what_is_written() -> None:
    assert " *image.rule=white" in describe_keys().splitlines()


@pytest.mark.parametrize(
    "arguments",
    [
        ["hpcdata.launch", "--help"],
        ["hpcdata.launch", "data.resolutoin=3"],
        ["hpcdata.status", "--help"],
        ["hpcdata.combine", "--help"],
        ["hpcdata.verify", "--help"],
        ["hpcdata.export", "--help"],
        ["hpcdata.index", "--help"],
        ["hpcdata.jobs.precompute_tokens", "--help"],
    ],
)
def test_help_and_mistakes_import_no_torch(arguments: list[str]) -> None:
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_module(sys.argv[0], run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'tensordict', 'transformers', 'datasets', 'webdataset', 'submitit'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)
    assert time.monotonic() - started < 20  # a bound for hangs only; timings are benchmarks


def test_threads_may_compose_at_the_same_time() -> None:
    sizes = range(1, 1 + examples(40))
    with ThreadPoolExecutor(8) as pool:
        configs = list(pool.map(lambda size: compose.compose([*PATHS, f"data.shard_size={size}"]), sizes))
    assert [found.data.shard_size for found in configs] == list(sizes)
