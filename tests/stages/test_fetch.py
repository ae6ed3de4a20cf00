"""The stage `fetch`: lists of URLs become pictures with their rows.   pytest tests/stages/test_fetch.py"""

from __future__ import annotations

import gc
import hashlib
import json
import socket
import tarfile
import threading
import urllib.parse
from pathlib import Path

import pytest

from hpcdata import export, rejects
from hpcdata.base.command import to_type
from hpcdata.base.errors import UserError
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.dataset.verifying import verify
from hpcdata.formats.target import problems_of
from hpcdata.history.ledger import read_ledgers
from hpcdata.report.status import read_status
from hpcdata.report.summary import describe
from hpcdata.runs.planning import prepare
from hpcdata.runs.rejects import rows_of
from hpcdata.samples import BadSample
from hpcdata.stages.fetch import hosts, network, urls
from hpcdata.work.estimate import estimate
from hpcdata.work.prove import prove
from hpcdata.work.retry import retry
from hpcdata.work.task import TaskOutcome, run_task
from tests.net.misbehaving import Server, free_port
from tests.poisoned import install
from tests.smallruns import StopAfter, small_config, small_run
from tests.stages.url_lists import FETCH, jpeg, row, write_rows
from tests.trees import sha256_tree
from tests.work.test_poison import run_until_done
from tests.work.test_task import png

LINES = (*FETCH, "fetch.format=jsonl")


@pytest.fixture
def server():
    with Server() as started:
        yield started


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(urls, "_FIRST_WAIT_S", 0.001)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def work(run: Path) -> TaskOutcome:
    return run_task(run, StopAfter())  # type: ignore[arg-type]


def tars(run: Path) -> list[dict[str, bytes]]:
    """The samples of a run: extension -> bytes, in order."""
    found: list[dict[str, bytes]] = []
    for path in sorted(run.glob("shards/*/records/*.tar")):
        with tarfile.open(path) as tar:
            for item in tar:
                name, _, extension = item.name.partition(".")
                if not found or found[-1]["name"] != name.encode():
                    found.append({"name": name.encode()})
                found[-1][extension] = tar.extractfile(item).read()  # type: ignore[union-attr]
    return found


def reasons(run: Path, rows: list[dict]) -> dict[int, str]:
    """Number of a row of `url_lists` -> reason and message, without the URL."""
    numbers = {item["image_url"]: item["number"] for item in rows}
    found = {}
    for item in rows_of(run):
        url, _, message = item.message.partition(": ")
        found[numbers[url]] = f"{item.reason}: {message}"
    return found


@pytest.mark.parametrize("form", ["webdataset", "jsonl"])
def test_pictures_are_written_with_their_rows_and_read_again(server, tmp_path, form) -> None:
    rows = [row(server, number) for number in range(10)]
    run = tmp_path / "run"
    small_run(
        run, *FETCH, f"fetch.format={form}", "fetch.contact=you@lab.org", source=write_rows(tmp_path / "in.jsonl", rows)
    )
    combine(run, CombineOptions())
    assert [report.problems for report in verify(run)] == [[], []]
    proof = prove(run, 4, seed=1)
    assert (proof.drawn, proof.differences) == (4, [])
    assert {item.headers["user-agent"].partition(" ")[2] for item in server.asked} == {"(+you@lab.org)"}
    if form == "webdataset":
        samples = tars(run)
        fields = [json.loads(item["json"]) for item in samples]
        assert [item["jpg"] for item in samples] == [jpeg(item["number"]) for item in fields]
        assert [item["txt"].decode() for item in samples] == [item["caption"] for item in fields]
    else:
        paths = [(path.parent, line) for path in run.glob("shards/*/records/*.jsonl") for line in path.open()]
        fields = [json.loads(line) for _, line in paths]
        assert all(
            (folder / item["image"]).read_bytes() == jpeg(item["number"])
            for (folder, _), item in zip(paths, fields, strict=True)
        )
    assert sorted(item["number"] for item in fields) == list(range(10))
    by_number = {item["number"]: item for item in rows}
    for item in fields:
        assert item["url"] == by_number[item["number"]]["image_url"]
        assert item["sha256"] == item["image_sha256"] == by_number[item["number"]]["image_sha256"]
        assert "image_url" not in item
    again = tmp_path / "again"  # what was fetched is raw data as any other
    suffix = "tar" if form == "webdataset" else "jsonl"
    copied = small_run(
        again, "stage=copy", "copy.needs=both", "data.n_train_samples=null", source=f"{run}/shards/*/records/*.{suffix}"
    )
    assert copied.num_samples == 10
    assert list(rows_of(again)) == []


def test_nothing_of_a_task_is_left_behind_it(server, tmp_path) -> None:
    for number in range(3):
        source = write_rows(tmp_path / f"{number}.jsonl", [row(server, number)])
        small_run(tmp_path / f"{number}", *FETCH, source=source)
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith(("fetching", "connect", "deadlines")):
            thread.join(20)
            assert not thread.is_alive(), thread.name


def test_an_estimate_ends_its_requests_itself(server, tmp_path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [row(server, number) for number in range(3)])
    gc.disable()
    try:
        estimate(small_config(tmp_path / "run", *FETCH, "estimate_s=0.001", source=source))
        for thread in threading.enumerate():
            if thread.name == "fetching":
                thread.join(20)
                assert not thread.is_alive()
    finally:
        gc.enable()


FAULTS = {
    1: (("404*",), "url_gone: HTTP 404"),
    2: (("410*",), "url_gone: HTTP 410"),
    3: (("403*",), "url_refused: HTTP 403"),
    4: (("451*",), "url_refused: HTTP 451"),
    5: (("html*",), "url_refused: no picture came, but a web page"),
    6: (("loop*",), "url_refused: more than 5 redirects"),
    7: (("to:file:///etc/passwd*",), "url_refused: its URL is no http or https: file"),
    8: (("robots:noai*",), "url_refused: its host says noai (X-Robots-Tag)"),
    9: (("503*",), "url_failed: HTTP 503"),
    10: (("429*",), "url_failed: HTTP 429"),
    11: (("cut*",), "url_failed: its body ends early"),
    12: (("close*",), "url_failed: the connection was closed"),
    13: (("corrupt*",), "sha256_differs: sha256 "),
    14: (("204*",), "url_refused: HTTP 204"),
    15: (("once:/15.jpg",), None),
    21: (("404", "404"), "url_gone: HTTP 404"),
    22: (("503", "cut"), None),
    23: (("429:0", "chunkcut"), None),
    24: (("gzip",), None),
    25: (("corrupt",), None),
    26: (("chunked",), None),
    27: (("to:/26.jpg*",), "sha256_differs: sha256 "),
    28: (("long",), None),
    29: (("bomb*",), "oversized_image: more than 60000 bytes, the limit"),
    30: (("endless*",), "oversized_image: more than 60000 bytes, the limit"),
    31: (("headers*",), "url_failed: its answer is no HTTP"),
    32: (("short*",), "sha256_differs: sha256 "),
    33: (("407*",), "url_failed: HTTP 407"),
    34: (("junk", "close"), None),
}
NOWHERE = "http://nowhere.invalid/x.jpg"


def test_what_came_of_each_url_is_in_the_account(server, tmp_path, monkeypatch) -> None:
    real = socket.getaddrinfo

    def resolved(host, *args, **kwargs):
        if host == "nowhere.invalid":
            raise socket.gaierror(socket.EAI_AGAIN, "no such host")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    rows = [row(server, number, *faults) for number, (faults, _) in FAULTS.items()]
    rows.append({**row(server, 99), "image_url": NOWHERE})
    run = tmp_path / "run"
    options = (*FETCH, "data.max_rejected=1", "fetch.max_bytes=60000")
    small_run(run, *options, source=write_rows(tmp_path / "in.jsonl", rows))
    found = reasons(run, rows)
    assert found.pop(99) == "url_failed: its host has no address"
    assert found.keys() == {number for number, (_, reason) in FAULTS.items() if reason}
    others = {number: said for number, said in found.items() if not said.startswith(FAULTS[number][1] or "?")}
    assert others == {}
    assert server.times("/1.jpg") == server.times("/3.jpg") == 1
    assert server.times("/9.jpg") == server.times("/11.jpg") == 3


def test_no_rows_are_lost_to_odd_values_and_nobody_outside_is_asked(server, tmp_path) -> None:
    rows = [
        {"image_url": "ftp://a.org/x.jpg"},
        {"image_url": "http://"},
        {"image_url": 7},
        {"image_url": None, "image": "../../etc/passwd"},
        {"image_url": ["http://user:secret@127.0.0.1:1/?token=secret"]},
        {"image_url": []},
    ]
    options = (*FETCH, "fetch.allow_private=false", "fetch.url_field=image_url", "data.max_rejected=1")
    run = tmp_path / "run"
    small_run(run, *options, source=write_rows(tmp_path / "in.jsonl", [*rows, row(server, 1)]))
    found = sorted(f"{item.reason}: {item.message}" for item in rows_of(run))
    assert found == [
        "bad_record: image_url is a number, expected a URL or a list of URLs",
        "missing_image: no URL in image_url",
        "missing_image: no URL in image_url",
        "url_refused: ftp://a.org/x.jpg: its URL is no http or https: ftp",
        "url_refused: http://127.0.0.1:1/?...: its host is private, and no address of the internet",
        f"url_refused: {server.url('/1.jpg')}: its host is private, and no address of the internet",
        "url_refused: http://: its URL names no host",
    ]
    assert server.asked == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["silent*", "drip:0.3*"])
def test_what_stalls_or_trickles_is_given_up_in_time(server, tmp_path, fault) -> None:
    rows = [row(server, number, fault) for number in range(4)]
    options = (*FETCH, "data.max_rejected=1", "fetch.timeout_s=0.5")
    small_run(tmp_path / "run", *options, source=write_rows(tmp_path / "in.jsonl", rows))
    assert set(reasons(tmp_path / "run", rows).values()) == {"url_failed: no answer in time"}


@pytest.mark.slow
def test_large_and_damaged_pictures_are_rejects(server, tmp_path) -> None:
    rows = [
        {"url": server.put("/a", jpeg(1) * 9), "number": 1},
        {"url": server.put("/b", jpeg(1) * 9, "chunked"), "number": 2},
        {"url": server.put("/c", jpeg(1)[:-400]), "number": 3},
        {"url": server.put("/d", png(size=(400, 32))), "number": 4},
        {"url": server.put("/e", b""), "number": 5},
    ]
    run, size = tmp_path / "run", len(jpeg(1))
    options = (*FETCH, f"fetch.max_bytes={size}", "data.max_image_pixels=2000", "data.max_rejected=1")
    small_run(run, *options, source=write_rows(tmp_path / "in.jsonl", rows))
    found = {item.message.partition(": ")[0].rpartition("/")[2]: item.reason for item in rows_of(run)}
    assert found == {
        **dict.fromkeys("abd", "oversized_image"), "c": "truncated", "e": "empty_image"
    }  # fmt: skip
    seen = tmp_path / "unseen"
    small_run(seen, *options, "fetch.decode=false", source=write_rows(tmp_path / "in.jsonl", rows))
    assert sorted(item.reason for item in rows_of(seen)) == ["empty_image", "oversized_image", "oversized_image"]


@pytest.mark.slow
def test_a_url_is_asked_for_once_for_all_its_rows(server, tmp_path) -> None:
    rows = [{**row(server, number), "caption": f"{again}"} for again in range(5) for number in range(6)]
    rows += [row(server, 6, "404*")] * 5
    run = tmp_path / "run"
    small_run(run, *FETCH, "data.shard_size=100", source=write_rows(tmp_path / "in.jsonl", rows))
    assert [server.times(f"/{number}.jpg") for number in range(7)] == [1] * 7
    assert (len(tars(run)), len(list(rows_of(run)))) == (30, 5)
    cut = tmp_path / "cut"  # a shard's end may part the rows of one URL
    small_run(cut, *FETCH, "data.shard_size=4", "data.max_rejected=1", source=write_rows(tmp_path / "in.jsonl", rows))
    assert len(server.asked) <= 7 + 7 + 35 // 4


@pytest.mark.slow
def test_a_wrong_sum_of_one_row_is_no_matter_of_another(server, tmp_path) -> None:
    good = row(server, 1)
    rows = [{**good, "image_sha256": "0" * 64}, good, {**good, "image_sha256": None}]
    run = tmp_path / "run"
    small_run(run, *FETCH, "data.max_rejected=1", source=write_rows(tmp_path / "in.jsonl", rows))
    assert [item.reason for item in rows_of(run)] == ["sha256_differs"]
    unchecked = tmp_path / "unchecked"
    small_run(unchecked, *FETCH, "fetch.check_sha256=false", source=write_rows(tmp_path / "in.jsonl", rows))
    assert list(rows_of(unchecked)) == []


@pytest.mark.slow
def test_a_row_with_several_pictures_needs_them_all(server, tmp_path) -> None:
    first, second, gone = row(server, 1), row(server, 2), row(server, 3, "404*")
    rows = [
        {"image_urls": [first["image_url"], second["image_url"]], "number": 1},
        {"image_urls": [first["image_url"], gone["image_url"]], "number": 2},
    ]
    run = tmp_path / "run"
    small_run(run, *FETCH, source=write_rows(tmp_path / "in.jsonl", rows))
    (found,) = tars(run)
    assert (found["0.jpg"], found["1.jpg"]) == (jpeg(1), jpeg(2))
    assert json.loads(found["json"])["url"] == rows[0]["image_urls"]
    assert [item.reason for item in rows_of(run)] == ["url_gone"]
    rows = [
        {f"image_url_{place}": one["image_url"], f"image_sha256_{place}": one["image_sha256"]}
        for place, one in ((1, first), (2, second))
    ]
    rows = [{**rows[0], **rows[1], "text_2": "kept"}, {**rows[0], **rows[1], "image_sha256_2": "0" * 64}]
    run = tmp_path / "numbered"
    small_run(run, *FETCH, source=write_rows(tmp_path / "in.jsonl", rows))
    (found,) = tars(run)
    assert (found["0.jpg"], found["1.jpg"]) == (jpeg(1), jpeg(2))
    assert not [name for name in json.loads(found["json"]) if name.startswith("image_url")]
    assert json.loads(found["json"])["text_2"] == "kept"
    assert [item.reason for item in rows_of(run)] == ["sha256_differs"]


def test_a_retry_asks_again_for_what_may_come_and_for_nothing_else(server, tmp_path, capsys) -> None:
    rows = [row(server, number, *faults) for number, faults in enumerate([(), ("503*",), ("404*",), ("cut*",), ()])]
    run = tmp_path / "run"
    small_run(run, *FETCH, "data.max_rejected=1", source=write_rows(tmp_path / "in.jsonl", rows))
    assert reasons(run, rows).keys() == {1, 2, 3}
    told = f"2 url_failed may come another time: {to_type('rejects', run, '--retry')}"
    assert told in describe(read_status(run), run)
    assert rejects.main([str(run)]) == 0
    assert told in capsys.readouterr().out
    del server.asked[:]
    for number in (1, 2):
        row(server, number)
    result = retry(run)
    assert (result.tried, dict(result.recovered), dict(result.still_rejected)) == (
        2,
        {"url_failed": 1},
        {"url_failed": 1},
    )
    assert {item.path for item in server.asked} == {"/1.jpg", "/3.jpg"}
    capsys.readouterr()
    assert rejects.main([str(run), "--retry", "--reason=url_gone", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["tried"], shown["recovered"], shown["still_rejected"]) == (1, {"url_gone": 1}, {})
    combine(run, CombineOptions())
    assert [report.problems for report in verify(run)] == [[], []]
    assert read_status(run).counts["written"] == 4


def test_a_machine_that_reaches_nobody_rejects_nothing_and_stops(server, tmp_path) -> None:
    port = free_port()
    rows = [row(server, number) for number in range(40)]
    for item in rows:
        item["image_url"] = str(item["image_url"]).replace(str(server.port), str(port))
    run = tmp_path / "run"
    source = write_rows(tmp_path / "in.jsonl", rows)
    prepare(small_config(run, *FETCH, source=source))
    assert work(run) is TaskOutcome.FAILED
    events = [event for _, events in read_ledgers(run / "ledger") for event in events]
    (failed,) = [event for event in events if event["event"] == "failed"]
    assert failed["error"].startswith("none of 1 hosts of the list can be reached from ")
    assert [event for event in events if event["event"] in ("checkpoint", "commit")] == []
    assert not list((run / "claims").glob("0*"))
    with Server(port=port) as there:
        for number in range(40):
            row(there, number)
        assert work(run) is TaskOutcome.FINISHED
    assert read_status(run).counts["written"] == 40


@pytest.mark.slow
def test_where_the_network_goes_in_the_middle_what_came_is_safe(tmp_path, monkeypatch) -> None:
    run, port = tmp_path / "run", free_port()
    with Server(port=port) as there:
        rows = [row(there, number) for number in range(60)]
        prepare(
            small_config(
                run,
                *FETCH,
                "data.shard_size=60",
                "data.save_tmp_interval=1000",
                source=write_rows(tmp_path / "in.jsonl", rows),
            )
        )
        planned = sorted(rows, key=lambda row: hashlib.sha256(row["image_url"].encode()).digest())
        take, come = there.take, {urllib.parse.urlsplit(row["image_url"]).path for row in planned[:30]}
        monkeypatch.setattr(there, "take", lambda path: take(path) if path in come else _gone(there))
        monkeypatch.setattr(network.Network, "_reaches", lambda self, url: False)
        assert work(run) is TaskOutcome.FAILED
    assert "fetching" not in {thread.name for thread in threading.enumerate()}
    safe = read_status(run).samples_done
    assert safe == 28
    monkeypatch.undo()
    with Server(port=port) as there:
        for number in range(60):
            row(there, number)
        assert work(run) is TaskOutcome.FINISHED
        assert len(there.asked) == 60 - safe
    assert read_status(run).counts["rejected"] == {}


def _gone(server: Server):
    raise ConnectionAbortedError


@pytest.mark.parametrize("fault", ["html*", "407*", "502*"])
def test_what_a_proxy_says_of_itself_is_no_picture(server, tmp_path, monkeypatch, fault) -> None:
    server.put("/x.jpg", b"", fault)
    monkeypatch.setenv("http_proxy", server.url(""))
    row = {"image_url": "http://far.example/x.jpg"}
    small_run(tmp_path / "run", *FETCH, "data.max_rejected=1", source=write_rows(tmp_path / "in.jsonl", [row]))
    (found,) = rows_of(tmp_path / "run")
    assert found.reason == ("url_refused" if fault == "html*" else "url_failed")


@pytest.mark.slow
def test_a_host_that_is_gone_is_no_fault_of_the_machine_while_others_answer(server, tmp_path) -> None:
    rows = [row(server, number) for number in range(8)]
    gone = [{**row(server, 9), "image_url": f"http://127.0.0.1:{free_port()}/{number}"} for number in range(3)]
    run = tmp_path / "run"
    small_run(run, *FETCH, "data.max_rejected=1", source=write_rows(tmp_path / "in.jsonl", [*rows, *gone]))
    assert [item.reason for item in rows_of(run)] == ["url_failed"] * 3
    alone = tmp_path / "alone"
    options = (*FETCH, "data.max_rejected=1", "fetch.on_unreachable=reject")
    small_run(alone, *options, source=write_rows(tmp_path / "gone.jsonl", gone))
    assert [item.reason for item in rows_of(alone)] == ["url_failed"] * 3


def test_a_host_that_asks_for_a_long_time_is_asked_no_more(server, tmp_path) -> None:
    rows = [row(server, number, "429:3600*") for number in range(30)]
    run = tmp_path / "run"
    options = (*FETCH, "data.max_rejected=1", "fetch.connections=2", "fetch.host_connections=1")
    small_run(run, *options, source=write_rows(tmp_path / "in.jsonl", rows))
    assert {(item.reason, item.message.partition(": ")[2]) for item in rows_of(run)} == {("url_failed", "HTTP 429")}
    assert len(server.asked) <= 2


@pytest.mark.slow
def test_no_host_is_asked_more_than_so_often_at_once(server, tmp_path) -> None:
    rows = [row(server, number, "slow:0.01") for number in range(24)]
    run = tmp_path / "run"
    small_run(run, *FETCH, "fetch.host_connections=3", source=write_rows(tmp_path / "in.jsonl", rows))
    assert 1 < server.most_at_once <= 3


def test_tasks_of_an_array_share_what_a_host_bears() -> None:
    def shares(*options: str) -> tuple[int, float, int]:
        config = small_config(Path("/out"), *options)
        tasks = urls.tasks_at_once(config)
        return tasks, config.fetch.host_rate / tasks, max(1, int(config.fetch.host_connections / tasks))

    assert shares() == (1, 20.0, 8)
    assert shares("cluster=local", "cluster.array=0-3") == (4, 5.0, 2)
    assert shares("cluster=slurm", "cluster.array=0-99%20", "cluster.tasks_per_node=2") == (40, 0.5, 1)


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("fetch.connections=0", "fetch.connections=0: expected a number above 0"),
        ("fetch.contact='grün'", "expected a mail address or a URL in ASCII"),
        ("data.source=text", "holds no rows with URLs"),
        ("fetch.url_field=nothing", "no URL in fetch.url_field=nothing"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_before_anything_is_asked(server, tmp_path, option, why) -> None:
    source = write_rows(tmp_path / "in.jsonl", [row(server, 1)])
    with pytest.raises(UserError, match=why):
        prepare(small_config(tmp_path / "run", *FETCH, option, source=source))
    assert server.asked == []


@pytest.mark.slow
def test_politeness_may_change_between_submissions_and_what_is_kept_may_not(server, tmp_path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [row(server, number) for number in range(3)])
    run = tmp_path / "run"
    small_run(run, *FETCH, source=source)
    before = sha256_tree(run / "shards")
    prepare(small_config(run, *FETCH, "fetch.host_rate=1", "fetch.connections=2", "fetch.tries=9", source=source))
    with pytest.raises(UserError, match=r"fetch\.decode was True"):
        prepare(small_config(run, *FETCH, "fetch.decode=false", source=source))
    assert sha256_tree(run / "shards") == before


@pytest.mark.slow
@pytest.mark.parametrize("form", ["webdataset", "jsonl"])
def test_what_was_fetched_is_exported_as_any_copied_records(server, tmp_path, form) -> None:
    rows = [row(server, number) for number in range(9)]
    run, out = tmp_path / "run", tmp_path / "out"
    small_run(run, *FETCH, f"fetch.format={form}", source=write_rows(tmp_path / "in.jsonl", rows))
    combine(run, CombineOptions())
    assert export.main([str(run), str(out), "--format", form]) == 0
    assert problems_of(out) == []
    if form == "jsonl":
        paths = [path for path in out.rglob("*.jsonl") if path.name != "hpcdata.files.jsonl"]
        lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
        assert sorted(item["number"] for item in lines) == list(range(9))
        return
    names = []
    for path in out.rglob("*.tar"):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    assert len(names) == 27


@pytest.mark.slow
def test_a_picture_that_kills_its_process_is_rejected_and_its_neighbours_are_written(server, tmp_path) -> None:
    rows = [row(server, number) for number in range(12)]
    run = tmp_path / "run"
    prepare(small_config(run, *LINES, "data.max_crashes=2", source=write_rows(tmp_path / "in.jsonl", rows)))
    python_path = install(tmp_path / "site", "segfault", [jpeg(7)])
    assert run_until_done(run, python_path, 3)[-1] == 0
    assert [item.reason for item in rows_of(run)] == ["crash"]
    lines = [json.loads(line) for path in run.glob("shards/*/records/*.jsonl") for line in path.open()]
    assert sorted(item["number"] for item in lines) == [number for number in range(12) if number != 7]
    assert verify(run)[0].problems == []


@pytest.mark.slow
def test_a_disk_that_fails_for_a_moment_costs_no_row(server, tmp_path) -> None:
    rows = [row(server, number) for number in range(30)]
    run = tmp_path / "run"
    plan = prepare(small_config(run, *FETCH, source=write_rows(tmp_path / "in.jsonl", rows)))
    (listing,) = (run / item.file.path for item in plan.inputs)
    listing.rename(tmp_path / "aside")
    assert work(run) is TaskOutcome.FAILED
    assert read_status(run).counts["rejected"] == {}
    (tmp_path / "aside").rename(listing)
    assert work(run) is TaskOutcome.FINISHED
    assert read_status(run).counts["written"] == 30


def test_of_ever_more_hosts_the_latest_are_remembered(monkeypatch) -> None:
    monkeypatch.setattr(hosts, "_MOST_HOSTS", 4)
    found = hosts.Hosts()
    for number in range(9):
        for name in ("down", f"{number}.once", f"{number}.too"):
            found.failed(name)
    found.close_if_down("down", "no answer in time")
    with pytest.raises(BadSample, match="no answer in time"):
        found.require_open("down")
    found.require_open("8.too")
    assert len(found._failures) == 4
