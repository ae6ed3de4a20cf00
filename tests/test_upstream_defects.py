"""Every defect of UniDisc and Liquid that could exist here, and the test that would fail.

pytest tests/test_upstream_defects.py checks that those tests exist; the tests themselves run where they are.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
DEFECTS = {
    "UniDisc 1: a requeued task starts from zero, its first save deletes the fuller checkpoint": [
        "work/test_task.py::test_a_stopped_task_continues_where_it_was_and_not_from_zero",
        "work/test_task.py::test_bytes_do_not_depend_on_where_a_task_was_stopped",
    ],
    "UniDisc 2: saving deletes before it writes": [
        "work/test_task.py::test_bytes_do_not_depend_on_where_a_task_crashed",
        "dataset/test_combining.py::test_replacing_a_dataset_killed_between_its_renames_loses_nothing",
    ],
    "UniDisc 3: data.save_tmp_interval is never read": [
        "work/test_task.py::test_a_stopped_task_continues_where_it_was_and_not_from_zero"
    ],
    "UniDisc 4: the signal handler never exits, no trap runs under srun": [
        "slurm/test_signals.py::test_a_stop_signal_sets_the_flag",
        "slurm/test_task.py::test_a_preempted_array_leaves_at_once_and_comes_back",
        "slurm/test_sbatch.py::test_an_array_by_hand_is_preempted_and_continues",
    ],
    "UniDisc 5: --array=3,17 makes other shards": [
        "work/test_task.py::test_transient_settings_do_not_change_bytes",
        "work/test_task.py::test_finished_shards_are_skipped_when_the_line_is_submitted_again",
    ],
    "UniDisc 6: combining drops images with code 0": [
        "work/test_task.py::test_an_image_whose_codes_are_all_zero_reaches_the_loader"
    ],
    "UniDisc 7: removing duplicates keeps the first K rows": ["sources/test_tars.py::test_repeated_keys"],
    "UniDisc 8: the last partial batch overwrites earlier rows": [
        "work/test_retry.py::test_a_retry_adds_what_succeeds_and_leaves_shards_alone",
        "work/test_prove.py::test_a_good_run_is_proved",
    ],
    "UniDisc 9: several processes of a task write one folder": [
        "test_kills.py::test_the_bytes_are_those_of_an_undisturbed_process",
        "slurm/test_sbatch.py::test_every_process_of_a_node_is_a_worker",
        "work/test_task.py::test_a_process_that_was_stopped_too_long_changes_nothing_when_it_continues",
    ],
    "UniDisc 10: int16 ids wrap above 32767": ["test_upstream_defects.py::test_ids_never_wrap"],
    "UniDisc 11: combining holds all in memory, deletes what it skipped, stops when the output exists": [
        "test_upstream_defects.py::test_combining_takes_no_memory_for_the_data",
        "dataset/test_combining.py::test_combine_killed_at_any_step_can_be_repeated_and_loses_nothing",
        "dataset/test_combining.py::test_a_dataset_with_gaps_is_replaced_when_the_run_is_finished",
        "dataset/test_combining.py::test_combining_twice_changes_nothing",
        "dataset/test_combining.py::test_a_foreign_folder_is_never_replaced",
    ],
    "UniDisc 12: a text-only row shifts every later image": [
        "test_upstream_defects.py::test_a_text_only_row_shifts_no_image"
    ],
    "UniDisc 13: one bad sample drops its batch, a missing file ends the job": [
        "work/test_task.py::test_bad_samples_become_rejects_with_a_reason_and_their_neighbours_survive",
        "sources/test_tars.py::test_one_bad_sample_is_one_reject",
    ],
    "UniDisc 14: codes vary with TF32 and cudnn.benchmark": [
        "encoders/image/test_tokenizer.py::test_build_fixes_the_arithmetic",
        "dataset/test_provenance.py::test_the_arithmetic_and_the_devices",
        "work/test_prove.py::test_a_good_run_is_proved",
    ],
    "UniDisc 15: logs print every prompt": ["test_upstream_defects.py::test_logs_have_no_text_of_the_data"],
    "UniDisc 16: equal tar names in different folders collide, a bad index wraps": [
        "test_upstream_defects.py::test_tars_of_equal_names_do_not_collide",
        "sources/test_inputs.py::test_equal_names_in_different_folders",
        "sources/test_inputs.py::test_a_bad_wids_index",
    ],
    "UniDisc 17: an unseeded random subset": ["test_upstream_defects.py::test_planning_draws_nothing"],
    "Liquid 1: record errors vanish in the pool": ["work/test_retry.py::test_rejects_are_listed_and_counted"],
    "Liquid 2: everything is written at the end": [
        "work/test_task.py::test_a_stopped_task_continues_where_it_was_and_not_from_zero"
    ],
    "Liquid 3: stale files of another number of chunks are merged": [
        "work/test_task.py::test_resuming_with_another_semantic_setting_is_refused_with_the_difference"
    ],
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_test_protects_from(defect: str) -> None:
    for entry in DEFECTS[defect]:
        path, name = entry.split("::")
        tree = ast.parse((ROOT / path).read_text())
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in names, entry


def test_ids_never_wrap() -> None:
    import numpy as np

    from hpcdata.samples import Example, Kind, Span
    from hpcdata.shards.columns import id_dtype_for, token_schema
    from hpcdata.shards.made import Before
    from hpcdata.shards.tables import EncodedBatch

    assert [id_dtype_for(size) for size in (32768, 32769, 65536, 65537)] == ["uint16", "uint16", "uint16", "int32"]

    def stored(*ids: int) -> list[int]:
        example = Example(index=0, key="k", spans=(Span(kind=Kind.TEXT, ids=np.array(ids)),))
        schema = token_schema("uint16")
        laid = EncodedBatch(examples=[example]).lay_out(schema, Before(rows=schema.no_rows()))
        return laid.columns["tokens/ids.memmap"].tolist()

    assert stored(32767, 32768, 65535) == [32767, 32768, 65535]
    for bad in (65536, -1):
        with pytest.raises(OverflowError):
            stored(bad)


def test_a_text_only_row_shifts_no_image(tmp_path: Path) -> None:
    import json

    from PIL import Image

    from hpcdata import TokenDataset
    from hpcdata.dataset.combining import CombineOptions, combine
    from hpcdata.samples import Kind
    from tests.smallruns import small_run

    rows: list[dict[str, str]] = []
    for number in range(6):
        Image.new("RGB", (32, 32), (40 * number,) * 3).save(tmp_path / f"{number}.png")
        rows.append({"text": f"{number}", "image": f"{number}.png"})
    orders = {"pairs": rows, "mixed": [{"text": "alone"}, *rows[:3], {"text": "alone"}, *rows[3:]]}
    codes = {}
    for name, order in orders.items():
        source = tmp_path / f"{name}.jsonl"
        source.write_text("\n".join(map(json.dumps, order)))
        small_run(tmp_path / name, "data.n_train_samples=null", source=source)
        combine(tmp_path / name, CombineOptions())
        spans = [
            [span for span in example.spans if span.kind == Kind.IMAGE] for example in TokenDataset(tmp_path / name)
        ]
        codes[name] = [found[0].ids.tolist() for found in spans if found]
    assert codes["pairs"] == codes["mixed"]


def test_combining_takes_no_memory_for_the_data(tmp_path: Path) -> None:
    """48 MB of ids, linked and rewritten within a quarter of that."""
    import tracemalloc

    import numpy as np

    from hpcdata.dataset.combining import CombineOptions, combine
    from hpcdata.runs.paths import RunPaths
    from hpcdata.samples import Example, Kind, Span
    from hpcdata.shards.tables import EncodedBatch
    from hpcdata.shards.takeover import open_shard
    from tests import made

    plan, paths = made.plan(2, shard_size=1), RunPaths(tmp_path)
    paths.shards.mkdir()
    paths.plan.write_bytes(plan.to_json())
    for spec in plan.shards():
        writer = open_shard(paths.shards, plan.header(spec), "made")
        assert writer is not None
        span = Span(kind=Kind.TEXT, ids=np.arange(12_000_000, dtype=np.int64) % 32_000)
        writer.append(EncodedBatch(examples=[Example(index=spec.shard, key=f"{spec.shard}", spans=(span,))]))
        writer.commit()
    tracemalloc.start()
    for options in (CombineOptions(), CombineOptions(compact=True)):
        assert combine(tmp_path, options).counts.text_tokens == 24_000_000
    assert tracemalloc.get_traced_memory()[1] < 12e6
    tracemalloc.stop()


@pytest.mark.slow
def test_logs_have_no_text_of_the_data(tmp_path: Path) -> None:
    from tests.smallruns import small_config, start_task

    source = tmp_path / "x.jsonl"
    source.write_text('{"text": "a very private prompt"}\n{"text": "a very private prompt", "image": "gone.png"}\n')
    from hpcdata.runs.planning import prepare

    prepare(small_config(tmp_path / "run", "data.n_train_samples=null", source=source))
    assert start_task(tmp_path / "run").wait(120) == 0
    written = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not any(b"private prompt" in data for data in (*written, Path(f"{tmp_path / 'run'}.log").read_bytes()))


def test_tars_of_equal_names_do_not_collide(tmp_path: Path) -> None:
    from hpcdata import TokenDataset
    from hpcdata.dataset.combining import CombineOptions, combine
    from tests.smallruns import small_run
    from tests.work.test_task import make_tar, png

    for number, folder in enumerate("ab"):
        members = [("0.png", png((99 * number, 0, 0))), ("0.txt", folder.encode())]
        make_tar(tmp_path / folder / "x.tar", members)
    small_run(tmp_path / "run", "data.n_train_samples=null", source=f"{tmp_path}/[ab]/x.tar")
    combine(tmp_path / "run", CombineOptions())
    first, second = TokenDataset(tmp_path / "run")
    assert (first.key, second.key) == ("a/x.tar/0", "b/x.tar/0")
    assert first.spans[1].ids.tolist() != second.spans[1].ids.tolist()


def test_planning_draws_nothing(tmp_path: Path) -> None:
    from hpcdata.runs.planning import prepare
    from tests.smallruns import small_config

    plans = [prepare(small_config(tmp_path / name)) for name in "ab"]
    assert plans[0].fingerprint == plans[1].fingerprint
    assert plans[0].inputs == plans[1].inputs
