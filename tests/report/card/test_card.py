"""Cards: what they say of real small runs, in both forms.   pytest tests/report/card/test_card.py"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from hpcdata import card as card_command
from hpcdata import export
from hpcdata.base import sealed
from hpcdata.catalogue import listing
from hpcdata.catalogue.registry import Catalogue
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.dataset.manifest import read_manifest
from hpcdata.report.card import figures, reasons
from hpcdata.report.card.head import licence_of
from hpcdata.samples import Reason
from tests import browser
from tests.smallruns import small_run
from tests.work.test_task import make_tar, png

HERE = Path(__file__).parent
VARIES = re.compile(r"\b[0-9a-f]{64}\b|0\.1\.0\+\S+")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Six pairs, of which one has a picture that is cut, and one no text."""
    pieces = []
    for number in range(6):
        data = png(size=(20 + 10 * number, 30))
        pieces.append((f"{number}.png", data[:60] if number == 2 else data))
        pieces += [(f"{number}.txt", f"a picture, number {number}".encode())] if number != 3 else []
    return make_tar(tmp_path_factory.mktemp("source") / "in/pairs|<b>.tar", pieces)


def combined(folder: Path, source: Path, *options: str) -> Path:
    small_run(folder, "data.n_train_samples=null", "data.max_rejected=1", *options, source=source)
    combine(folder, CombineOptions())
    return folder


def carded(run: Path, *options: str) -> tuple[str, str]:
    """Markdown and page of a run."""
    assert card_command.main([str(run), *options]) == 0
    return (run / "card.md").read_text(), (run / "card.html").read_text()


def sections(text: str) -> dict[str, str]:
    return dict(re.findall(r"^## (.*?)\n\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tokens", ()),
        ("copy", ("stage=copy", "copy.format=jsonl", "copy.needs=both", "image.tokenizer=null")),
        ("measure", ("stage=measure",)),
    ],
)
def test_a_card_says_what_became_of_it(tmp_path: Path, source: Path, name: str, options: tuple[str, ...]) -> None:
    run = combined(tmp_path / "our pairs", source, *options)
    text, _ = carded(run, "--license", "ODC-BY-1.0", "--language", "en", "--note", "Made for <tests>.")
    assert str(tmp_path) not in text
    expected = HERE / f"{name}.md"
    kept = (line for line in VARIES.sub("#", text).splitlines() if not line.startswith("| libraries"))
    found = "".join(f"{line}\n" for line in kept)
    assert found == expected.read_text(), f"if it is meant so, write it to {expected}"


def test_the_page_says_the_same_and_a_browser_shows_it(tmp_path: Path, source: Path) -> None:
    run = combined(tmp_path / "run", source)
    text, page = carded(run, "--title", "<script>alert(1)</script> & more")
    for cell in re.findall(r"<td[^>]*>([^<]+)</td>", page):
        assert cell.split("&")[0][:20] in text.replace("\\", "") or cell.startswith("&")
    assert "<script>" not in page
    assert [title for title, _ in sections(text).items()] == re.findall(r"<h2>(.*?)</h2>", page)


@pytest.mark.slow
def test_a_browser_shows_a_card_and_asks_nobody(tmp_path: Path, source: Path) -> None:
    run = combined(tmp_path / "run", source)
    carded(run, "--title", "<script>alert(1)</script> & more")
    shown = browser.open_page(run / "card.html")
    assert not shown.requests
    assert "pairs|&lt;b&gt;.tar" in shown.dom
    assert shown.dom.count("<svg") == 3


def test_an_export_has_a_card_beside_it(tmp_path: Path, source: Path) -> None:
    run = combined(tmp_path / "run", source)
    out = tmp_path / "export"
    assert export.main([str(run), str(out), "--format", "jsonl"]) == 0
    about = tmp_path / "about" / "README"
    assert card_command.main([str(out), "--out", str(about), "--license", "made up 2"]) == 0
    text = about.with_suffix(".md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert (head["license"], head["license_name"], head["tags"]) == ("other", "made-up-2", ["hpcdata", "jsonl"])
    assert "of stage=tokenize, in the form jsonl" in text
    assert read_manifest(run).content_digest in text


def test_the_catalogue_says_licence_and_place(tmp_path: Path, source: Path) -> None:
    entry = {
        "name": "our_set", "title": "things | of ours", "folder": "ours", "licence": "CC-BY-4.0",
        "hub": [{"repo": "lab/ours"}], "splits": {"train": ["*.parquet"]},
    }  # fmt: skip
    (tmp_path / "entries").mkdir()
    (tmp_path / "entries/our_set.yaml").write_text(json.dumps(entry))
    run = combined(tmp_path / "run", source, "image.tokenizer=none")
    text, _ = carded(run, "--set", "Our-Set", "--set", "nowhere", "--catalogue", str(tmp_path / "entries"))
    found = sections(text)["Sources"]
    assert r"| our\_set: things \| of ours | CC-BY-4.0 | lab/ours (hub) |  |" in found
    assert "| nowhere | nobody has said |  | not in the catalogue |" in found


def test_sets_that_were_downloaded_are_found_by_their_folders(tmp_path: Path) -> None:
    entry = next(entry for entry in Catalogue().entries if entry.name == "chart_qa")
    folder = tmp_path / "data" / entry.folder
    (folder / "data").mkdir(parents=True)
    source = make_tar(folder / "data/x.tar", PAIRS)
    listing.path_of(folder).parent.mkdir(parents=True)
    listing.path_of(folder).write_bytes(sealed.to_json({"sources": listing.sources_of(entry), "files": []}))
    run = combined(tmp_path / "run", source, "image.tokenizer=none")
    text, _ = carded(run, "--set", "ChartQA", "--set", "cc3m")
    found = sections(text)["Sources"]
    assert found.count(r"chart\_qa: questions about charts | GPL-3.0 | HuggingFaceM4/ChartQA (hub)") == 1
    assert "cc3m: " in found
    out = tmp_path / "export"
    assert export.main([str(run), str(out), "--format", "jsonl"]) == 0
    listing.path_of(folder).unlink()
    text, _ = carded(run)
    assert "questions about charts" not in text
    shutil.rmtree(run)
    assert card_command.main([str(out), "--set", "cc3m", "--set", "chart_qa"]) == 0
    found = sections(Path(f"{out}.card.md").read_text())["Sources"]
    assert found.count(r"chart\_qa: questions about charts | GPL-3.0 | HuggingFaceM4/ChartQA (hub)") == 1
    assert "cc3m: " in found
    assert "| x.tar | 5 |" in found
    assert str(tmp_path) not in (out / "hpcdata.json").read_text()


def test_figures_of_many_parts_are_of_some(tmp_path: Path, monkeypatch) -> None:
    folder = combined(tmp_path / "run", make_tar(tmp_path / "in/x.tar", PAIRS), "data.shard_size=1") / "dataset"
    monkeypatch.setattr(figures, "MOST_PARTS", 2)
    table, of = figures.sizes_of(read_manifest(folder))
    assert table is not None
    assert of == "Of 2 of 5 parts, spread evenly."
    (text,) = [row for row in table.rows if row[0] == "text ids of a sample"]
    assert len(text) == len(table.columns)


PAIRS = [item for number in range(5) for item in ((f"{number}.png", png()), (f"{number}.txt", b"word " * (number + 1)))]


def test_a_run_that_is_not_combined_has_no_card(tmp_path: Path, source: Path, capsys) -> None:
    small_run(tmp_path / "run", source=source)
    assert card_command.main([str(tmp_path / "run")]) == 2
    assert "is a run that is not combined yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "known"),
    [("ODC-BY-1.0", "odc-by"), ("CC BY 4.0", "cc-by-4.0"), ("mit", "mit"), ("my own", None), ("", None)],
)
def test_licences_as_hubs_call_them(name: str, known: str | None) -> None:
    assert licence_of(name) == known


def test_every_reason_has_words() -> None:
    assert all(reasons.words(reason) != "" for reason in Reason)
    assert reasons.words("made_later") == "made later"
