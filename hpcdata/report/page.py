"""The report page of a run (`status --html`): one HTML file with its own style and charts, and nothing from elsewhere.

    python -m hpcdata.status OUT --html FILE

Names, hosts and messages come from other processes: they are escaped, and the page forbids the browser to run scripts
or to fetch anything. Its size does not grow with the run: many shards and tasks are summed up, and it says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from hpcdata.base import units
from hpcdata.base.command import to_type
from hpcdata.base.version import code_version
from hpcdata.history.history import History
from hpcdata.history.process import PREEMPTED, RUNNING, SPENT, VANISHED
from hpcdata.history.tasks import Task, natural
from hpcdata.report import charts
from hpcdata.report.charts import LEFT, RIGHT, WIDTH, Axis, text
from hpcdata.report.codes import CodebookUse, count_codes
from hpcdata.report.gantt import draw
from hpcdata.report.pagestyle import HEAD
from hpcdata.report.status import Observer, Status
from hpcdata.report.summary import warnings
from hpcdata.report.timeline import histogram, throughput
from hpcdata.runs.plan import Plan

NUM_BINS = 160
MAX_REASONS = 30
MAX_TASKS = 40


def render(observer: Observer, status: Status) -> str:
    """The page of what `status` and the observer's ledgers say."""
    root, history = observer.paths.root.absolute(), observer.history
    sections = [
        _overview(status),
        *_over_time(observer),
        _time_spent(status, history),
        _files(observer.plan),
        _rejects(status, str(root)),
        _tokens(status, history),
        _codebook(count_codes(observer.plan, observer.paths)),
        _tasks(status),
    ]
    title = f"hpcdata run {text(root)}"
    state = "stopped" if status.stopped and not status.is_finished else status.state
    notes = "".join(f'<p class="note">{text(note, 400)}</p>' for note in warnings(status, root))
    made = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<title>{title}</title>\n{HEAD}</head>\n<body>\n<main>\n'
        f'<header><h1>{text(root)}</h1><p><span id="state" class="badge {state}">{state}</span> '
        f"{text(_facts(observer))}; as of {made}</p></header>\n{notes}\n" + "\n".join(sections) + "\n"
        f"<footer>{_DEFINITIONS} Made by hpcdata {text(code_version())}.</footer>\n"
        "</main>\n</body>\n</html>\n"
    )


_DEFINITIONS = (
    "Seconds are those of processes. Useful: made safe by a checkpoint or commit; lost: died with a process, or done "
    "twice; overhead: starting, loading weights, claiming, waiting; queued: between the end of a task and its next "
    "start. Goodput is useful / (useful + lost + overhead)."
)


def _facts(observer: Observer) -> str:
    plan = observer.plan
    image = (
        f", image codes by {plan.image.preset} ({units.count(plan.image.codebook_size)} codes)" if plan.image else ""
    )
    vocabulary = f", {units.count(plan.text.vocab_size)} text tokens" if plan.text else ""
    files, shards = units.counted(len(plan.inputs), "input file"), units.counted(plan.num_shards, "shard")
    return f"{files}, {shards}{vocabulary}{image}"


def _section(name: str, title: str, body: str, note: str = "") -> str:
    below = f'\n<p class="soft">{text(note, 600)}</p>' if note else ""
    return f'<section id="{name}">\n<h2>{title}</h2>\n{body}{below}\n</section>'


def _overview(status: Status) -> str:
    rejected = sum(status.counts["rejected"].values())
    inputs = max(1, status.counts["inputs"])
    interrupted = f"{units.count(status.vanished)} vanished, {units.count(status.starts)} starts"
    left = "" if status.is_finished else f"{units.duration(status.seconds_left)} left"
    tiles = [
        ("Samples done", units.percent(status.samples_done / max(1, status.num_samples)), _of(status)),
        (
            "Shards committed",
            units.count(status.done),
            f"of {units.count(status.num_shards)}; {status.running} running",
        ),
        ("Rate", f"{units.rate(status.samples_per_s)}/s" if status.samples_per_s else "–", left),
        ("Goodput", "–" if status.goodput is None else units.percent(status.goodput), "of the time of processes"),
        ("Preemptions", units.count(status.preemptions), interrupted),
        ("Rejected", units.count(rejected), f"{units.percent(rejected / inputs)} of what was read"),
    ]
    boxes = "".join(
        f'<div class="tile"><div class="soft">{name}</div><div class="figure">{text(figure)}</div>'
        f'<div class="soft">{text(more)}</div></div>'
        for name, figure, more in tiles
    )
    share = 100 * status.samples_done / max(1, status.num_samples)
    progress = f'<div class="bar"><div class="good" style="width:{share:.2f}%"></div></div>'
    lines = [f"Dataset: {status.combined}"] if status.combined else []
    if status.jobs:
        lines.append("Scheduler: " + ", ".join(f"{number} {state}" for state, number in status.jobs.items()))
    return _section("overview", "Summary", f'<div class="tiles">{boxes}</div>{progress}', "; ".join(lines))


def _of(status: Status) -> str:
    return f"{units.count(status.samples_done)} of {units.count(status.num_samples)}"


def _over_time(observer: Observer) -> Iterator[str]:
    """Throughput, interruptions and the Gantt, on the same time axis."""
    history, states = observer.history, observer.states
    processes = [process for process in history.processes.values() if process.started]
    if not processes:
        yield _section("throughput", "Throughput", "", "No process has started yet.")
        return
    start = min(process.started for process in processes)
    end = max(max(process.last for process in processes), start + 1.0)
    began = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(start))
    note = f"Samples a second, since {began}; below, processes that a signal ended (preempted), or that vanished."
    yield _section("throughput", "Throughput", _throughput(history, states, start, end), note)
    groups = history.by_task()
    chart = draw({name: groups[name] for name in sorted(groups, key=natural)}, states, start, end)
    legend = _legend({"done": "useful", "idle": "nothing made safe"} | _MARKS)
    yield _section("tasks-over-time", "Shards over tasks", legend + chart.svg, chart.note)


_MARKS = {"preempted": "preempted", "vanished": "vanished", "failed": "failed"}


def _throughput(history: History, states: dict[str, str], start: float, end: float) -> str:
    top, bottom, strip = 8.0, 190.0, 34.0
    x = charts.time_axis(start, end)
    values = throughput(history.segments(), start, end, NUM_BINS)
    y = Axis(low=0, high=float(values.max()) or 1.0, low_at=bottom, high_at=top)
    parts = [*charts.time_grid(x, top, bottom + strip), *charts.value_grid(y, LEFT, WIDTH - RIGHT)]
    parts.append(charts.steps(list(values), x, y, "area"))
    parts.append(charts.label(LEFT - 8, bottom + 24, "interrupted", anchor="end"))
    step, at = (x.high_at - x.low_at) / NUM_BINS, np.full(NUM_BINS, bottom + strip)
    ends = {
        kind: histogram(
            [item.last for name, item in history.processes.items() if states.get(name) == kind], start, end, NUM_BINS
        )
        for kind in (PREEMPTED, VANISHED)
    }
    most = max(1, *(ends[PREEMPTED] + ends[VANISHED]))
    for kind, numbers in ends.items():
        for number in np.flatnonzero(numbers):
            height = (strip - 10) * numbers[number] / most
            at[number] -= height
            title = f"{numbers[number]} {kind}"
            parts.append(charts.rect(x.low_at + number * step, at[number], step, height, f"cell {kind}", title))
    return charts.svg(bottom + strip + 24, parts, "Samples a second over time", "throughput-chart")


def _legend(kinds: dict[str, str]) -> str:
    items = "".join(f'<span><i class="key {kind}"></i>{words}</span>' for kind, words in kinds.items())
    return f'<p class="legend soft">{items}</p>\n'


def _time_spent(status: Status, history: History) -> str:
    total = {"useful": history.useful_s, "lost": history.lost_s, "overhead": history.overhead_s}
    body = _stack("All time of processes", {name: (f"time-{name}", seconds) for name, seconds in total.items()})
    spent = {name.removesuffix("_s"): float(history.spent[name]) for name in SPENT}
    spent["other"] = max(0.0, total["useful"] - sum(spent.values()))
    if total["useful"] > spent["other"]:
        body += _stack("Useful time", {name: (f"time-{name}", seconds) for name, seconds in spent.items()})
    note = f"Besides, tasks waited {units.duration(status.queued_s)} in the queue between two starts."
    if status.cpu_cores is not None:
        note += f" A process used {status.cpu_cores} CPU cores while it did useful work."
    if status.gpu_use is not None:
        note += f" GPUs were busy in {units.percent(status.gpu_use)} of it."
    return _section("time", "Where the time went", body, note)


def _stack(title: str, shares: dict[str, tuple[str, float]]) -> str:
    total = sum(seconds for _, seconds in shares.values())
    if not total:
        return f'<p class="soft">{title}: none yet.</p>'
    pieces = "".join(
        f'<div class="{kind}" style="width:{100 * seconds / total:.3f}%" title="{name}"></div>'
        for name, (kind, seconds) in shares.items()
    )
    keys = "".join(
        f'<span><i class="key {kind}"></i>{name} {units.percent(seconds / total)} ({units.duration(seconds)})</span>'
        for name, (kind, seconds) in shares.items()
    )
    return f'<h3>{title}: {units.duration(total)}</h3><div class="bar tall">{pieces}</div><p class="legend">{keys}</p>'


def _files(plan: Plan) -> str:
    """What of the folders of inputs is not read; nothing where all of it is."""
    if not plan.not_read:
        return ""
    rows = [(text(item.ending, 40), units.count(item.count), text(item.example, 120)) for item in plan.not_read]
    shown, num_left = rows[:MAX_REASONS], sum(item.num_files for item in plan.not_read)
    if len(rows) > MAX_REASONS:
        others = sum(item.count for item in plan.not_read[MAX_REASONS:])
        shown.append((f"{len(rows) - MAX_REASONS} more", units.count(others), "see plan.json"))
    note = ""
    if found := plan.found:
        note = (
            f"Found were {units.counted(found.files, 'file')}: {units.count(found.inputs)} inputs, "
            f"{units.count(found.parts)} parts of samples, {units.count(num_left)} not read."
        )
    return _section("files", "Files that are not read", _table(("ending", "files", "such as"), shown, wide=2), note)


def _rejects(status: Status, root: str) -> str:
    reasons = sorted(status.counts["rejected"].items(), key=lambda item: -item[1])
    if not reasons:
        return _section("rejects", "Rejects", '<p class="soft">None.</p>')
    total, most = max(1, status.counts["inputs"]), max(1, reasons[0][1])
    rows = [
        (
            text(reason, 60),
            f'<div class="bar"><div class="bad" style="width:{max(0.0, 100 * number / most):.2f}%"></div></div>',
            units.count(number),
            f"{100 * number / total:.3f} %",
        )
        for reason, number in reasons[:MAX_REASONS]
    ]
    if len(reasons) > MAX_REASONS:
        rows.append(
            (f"{len(reasons) - MAX_REASONS} more", "", units.count(sum(n for _, n in reasons[MAX_REASONS:])), "")
        )
    note = f"Share of the samples read. Which ones, and why: {to_type('rejects', root)}"
    return _section("rejects", "Rejects", _table(("reason", "", "samples", "share"), rows, wide=1), note)


def _tokens(status: Status, history: History) -> str:
    counts = status.counts
    written, images = max(1, counts["written"]), max(1, counts["images"])
    rows = [
        ("samples written", units.count(counts["written"]), ""),
        *([("left out by sampling", units.count(out), "")] if (out := status.left_out_by_sampling) else []),
        ("duplicates", units.count(counts["duplicate"]), ""),
        ("text tokens", units.count(counts["text_tokens"]), f"{counts['text_tokens'] / written:.1f} a sample"),
        ("image codes", units.count(counts["image_tokens"]), f"{counts['image_tokens'] / images:.1f} an image"),
        ("images", units.count(counts["images"]), f"{counts['images'] / written:.2f} a sample"),
        ("texts cut at data.block_size", units.count(counts["truncated_texts"]), ""),
    ]
    if fixed := counts.get("fixed_placeholders"):
        rows.append(("samples with markers put in", units.count(fixed), f"{fixed / written:.3f} a sample"))
    body = _table(("", "in all", "on average"), rows)
    accounts = history.accounts()
    note = ""
    if len(accounts) > 1:
        lengths = np.array([item["text_tokens"] / max(1, item["written"]) for item in accounts.values()])
        worst = max(accounts, key=lambda name: sum(accounts[name]["rejected"].values()))
        number = sum(accounts[worst]["rejected"].values())
        note = (
            f"Text tokens a sample: between {lengths.min():.1f} and {lengths.max():.1f} from shard to shard, median "
            f"{np.median(lengths):.1f}." + (f" Most rejects are in shard {worst}: {number}." if number else "")
        )
    return _section("tokens", "Tokens and codes", body, note)


def _codebook(use: CodebookUse | None) -> str:
    if use is None:
        return ""
    size = len(use.counts)
    ordered = np.sort(use.counts)[::-1] / max(1, use.num_codes)
    x = Axis(low=0, high=size, low_at=LEFT, high_at=WIDTH - RIGHT)
    y = Axis(low=0, high=1, low_at=170, high_at=8)
    picked = np.unique(np.linspace(0, size, 201).astype(int))
    summed = np.concatenate([[0.0], np.cumsum(ordered)])[picked]
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts += [charts.line([(LEFT, y(share)), (WIDTH - RIGHT, y(share))], "grid")]
        parts += [charts.label(LEFT - 8, y(share) + 4, f"{100 * share:.0f} %", anchor="end")]
    for number in charts.round_values(size, 8):
        parts.append(charts.label(x(number), 187, f"{number:,.0f}", anchor="middle"))
    parts.append(charts.line([(x.low_at, y.low_at), (x.high_at, y.high_at)], "even"))
    parts.append(charts.line([(x(code), y(share)) for code, share in zip(picked, summed, strict=True)], "curve"))
    note = (
        f"How much of all codes (upright) the most frequent ones make up (level); dashed: all equally frequent. Of "
        f"{units.count(size)} codes {units.count(use.num_used)} occur ({units.percent(use.num_used / size)}), the most "
        f"frequent one makes {units.percent(float(ordered[0]))}, perplexity {units.count(use.perplexity)}: counted in "
        f"{units.count(use.num_codes)} codes of {use.num_shards} shards, drawn evenly over the run."
    )
    return _section("codebook", "Codebook use", charts.svg(196, parts, "Codebook use", "codebook-chart"), note)


def _tasks(status: Status) -> str:
    """Those that somebody may want to look at first."""
    if not status.tasks:
        return ""
    ranks = {"failed": 0, "error": 0, VANISHED: 1, PREEMPTED: 2, RUNNING: 3}
    ordered = sorted(status.tasks, key=lambda task: (not task.is_slow, ranks.get(task.state, 4)))
    rows = [_task_row(task) for task in ordered[:MAX_TASKS]]
    states = ", ".join(f"{units.count(number)} {state}" for state, number in status.task_states.items())
    note = f"{units.count(status.num_tasks)} tasks: {states}."
    if len(ordered) > MAX_TASKS:
        note += f" The table has {MAX_TASKS} of them, failed, slow and interrupted ones first."
    head = ("task", "host", "state", "samples", "samples/s", "starts", "interrupted", "error")
    return _section("tasks", "Tasks", _table(head, rows, wide=7), note)


def _task_row(task: Task) -> tuple[str, ...]:
    state = task.state + (", slow" if task.is_slow else "") + (f" ({task.job_state})" if task.job_state else "")
    return (
        text(task.task, 40),
        text(task.host, 30),
        text(state, 40),
        units.count(task.samples),
        units.rate(task.samples_per_s) if task.samples_per_s else "",
        str(task.starts),
        str(task.preemptions + task.vanished),
        text(task.error or "", 160),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, wide: int | None = None) -> str:
    """rows: HTML. wide: the column that takes the room that is left."""
    kinds = ["wide" if number == wide else "" for number in range(len(head))]
    cells = "".join(f'<th class="{kind}">{name}</th>' for kind, name in zip(kinds, head, strict=True))
    lines = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>'
