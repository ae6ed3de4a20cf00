"""The report page of a run, in a real browser.   pytest tests/report/test_page.py"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpcdata import status as status_command
from hpcdata.dataset import combining as combine
from hpcdata.dataset.combining import CombineOptions
from hpcdata.dataset.dataset import TokenDataset
from hpcdata.report import codes, gantt, page, status
from hpcdata.report.charts import elapsed, round_values
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import load_plan
from hpcdata.runs.planning import prepare
from hpcdata.samples import Kind
from hpcdata.work.task import TaskOutcome, run_task
from tests import browser, made, synthetic
from tests.smallruns import StopAfter, small_config, small_run


def write(run: Path) -> Path:
    file = run.with_suffix(".html")
    assert status_command.main([str(run), "--html", str(file)]) == 0
    return file


def interrupted_run(folder: Path) -> None:
    """Real work on 30 pictures, one of them broken, preempted three times."""
    source = folder.with_name("pictures")
    source.mkdir()
    for number in range(30):
        colour = tuple(8 * number + shift for shift in (0, 5, 9))
        Image.new("RGB", (48, 40), colour).save(source / f"{number:02d}.png")  # type: ignore[arg-type]
        (source / f"{number:02d}.txt").write_text(f"a picture of number {number}")
    (source / "07.png").write_bytes(b"not a picture")
    config = small_config(folder, "data.n_train_samples=null", "data.save_tmp_interval=0.000001", source=source)
    prepare(config)
    for polls in (4, 5, 6):
        assert run_task(folder, StopAfter(polls)) is TaskOutcome.STOPPED  # type: ignore[arg-type]
    assert run_task(folder, StopAfter()) is TaskOutcome.FINISHED  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_browser_shows_a_run_with_preemptions_and_rejects_and_asks_nobody(tmp_path: Path) -> None:
    interrupted_run(tmp_path / "run")
    file = write(tmp_path / "run")
    shown = browser.open_page(file)
    assert not shown.requests
    assert re.findall(r'<section id="([a-z-]+)">', shown.dom) == [
        *("overview", "throughput", "tasks-over-time", "time", "rejects", "tokens", "codebook", "tasks")
    ]
    assert '<span id="state" class="badge finished">finished</span>' in shown.dom
    assert shown.dom.count('class="mark preempted"') == 3
    assert len(re.findall(r'<rect [^>]*class="done', shown.dom)) == load_plan(tmp_path / "run").num_shards
    assert re.search(r"<td>unreadable_image</td>.*<td>1</td><td>3\.333 %</td>", shown.dom)
    browser.screenshot(file, tmp_path / "page.png")
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).reshape(-1, 3)
    for colour in ((47, 111, 219), (217, 122, 6), (207, 44, 54)):  # work, a preemption, a reject
        assert (pixels == colour).all(1).sum() > 20, colour


@pytest.mark.slow
def test_the_browser_would_tell_of_requests(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<img src=https://example.org/a.png>")
    assert browser.open_page(tmp_path / "page.html").requests == {"https://example.org/a.png"}


@pytest.mark.slow
def test_text_of_other_processes_stays_text(tmp_path: Path) -> None:
    evil = "</title><script>document.body.innerHTML='owned'</script><img src=http://127.0.0.1:9/x onerror=alert(1)>"
    made.run(tmp_path / "run", unfinished={0: 8})
    (tmp_path / "run/ledger").mkdir()
    slurm = {"SLURM_JOB_ID": f'"><b class="x">{evil}'}
    events = [
        {"event": "start", "time": 1.0, "host": evil, "slurm": slurm},
        {"event": "error", "time": 5.0, "error": evil},
    ]
    (tmp_path / "run/ledger/a-1-x.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    shutil.move(tmp_path / "run", tmp_path / "<b>run")
    file = write(tmp_path / "<b>run")
    shown = browser.open_page(file)
    assert not shown.requests
    assert "&lt;script&gt;" in shown.dom
    assert not re.search(r"<script|<img|<b[ >]", shown.dom)
    assert '<section id="tasks">' in shown.dom


def test_many_tasks_and_shards_are_summed_up_and_the_page_says_so(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "run", synthetic.Options(num_shards=3000, num_tasks=200))
    content = write(tmp_path / "run").read_text()
    assert len(content) < 200_000
    assert re.search(r"200 tasks and [\d,]+ bars are summed up: a row is up to 5 tasks", content)
    assert content.count('class="soft">4242_') == gantt.MAX_ROWS
    assert "The table has 40 of them" in content
    assert 'class="cell preempted"' in content


def test_a_page_of_a_run_that_has_not_begun(tmp_path: Path) -> None:
    prepare(small_config(tmp_path / "run"))
    content = write(tmp_path / "run").read_text()
    assert "No process has started yet." in content
    assert 'class="badge unfinished"' in content


def test_figures_are_those_of_status(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "run", synthetic.Options(num_shards=40, num_tasks=4))
    observer = status.Observer(tmp_path / "run")
    look = observer.look()
    content = page.render(observer, look)
    assert look.goodput is not None
    for figure in (f"{100 * look.goodput:.1f} %", f"{look.done}</div>", f"{look.preemptions}</div>"):
        assert f'<div class="figure">{figure}' in content


@pytest.mark.parametrize("options", [None, {}, {"compact": True, "delete_after_combining": True}])
def test_codebook_use_is_counted_in_shards_and_in_datasets(tmp_path: Path, options: dict | None) -> None:
    plan = small_run(tmp_path / "run")
    if options is not None:
        combine.combine(tmp_path / "run", CombineOptions(**options))
    use = codes.count_codes(plan, RunPaths(tmp_path / "run"))
    combine.combine(tmp_path / "run", CombineOptions())
    dataset = TokenDataset(tmp_path / "run")
    spans = [span for example in dataset for span in example.spans if span.kind == Kind.IMAGE]
    expected = np.bincount(np.concatenate([span.ids for span in spans]), minlength=plan.image.codebook_size)  # type: ignore[union-attr]
    assert use is not None
    assert (use.counts == expected).all()
    assert 1 < use.perplexity <= use.num_used


def test_without_images_there_is_no_codebook(tmp_path: Path) -> None:
    plan = small_run(tmp_path / "run", "image.tokenizer=none")
    assert codes.count_codes(plan, RunPaths(tmp_path / "run")) is None
    assert 'id="codebook"' not in write(tmp_path / "run").read_text()


def test_perplexity_of_even_use_is_the_number_of_codes() -> None:
    assert codes.CodebookUse(num_shards=1, counts=np.full(64, 3)).perplexity == pytest.approx(64)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, "0"), (45, "45 s"), (90, "1:30 min"), (600, "10 min"), (5400, "1:30 h")]
)
def test_elapsed(seconds: float, expected: str) -> None:
    assert elapsed(seconds) == expected


@pytest.mark.parametrize(
    ("high", "expected"),
    [(0, [0]), (9.4, [0, 5]), (10, [0, 5, 10]), (730, [0, 200, 400, 600]), (0.3, [0, 0.1, 0.2, 0.3])],
)
def test_round_values(high: float, expected: list[float]) -> None:
    assert round_values(high) == pytest.approx(expected)
