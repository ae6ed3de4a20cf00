"""The real corpora that other tests are run on. python -m pytest tests/test_corpora.py"""

import json
import re
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from tests import corpora

needs_openclipart = pytest.mark.skipif(not corpora.available("openclipart"), reason="openclipart is not installed")
needs_tuxpaint = pytest.mark.skipif(not corpora.available("tuxpaint"), reason="tuxpaint-stamps is not installed")

SVG = """<svg xmlns="http://www.w3.org/2000/svg"><metadata>
<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:c="http://web.resource.org/cc/"
       xmlns:d="http://purl.org/dc/elements/1.1/"><c:Work>
<d:title> A  red&#10;fox </d:title><d:description>{description}</d:description>
<d:subject><r:Bag><r:li>hash</r:li><r:li></r:li><r:li>wild_animal</r:li><r:li>0x93af</r:li></r:Bag></d:subject>
<d:creator><c:Agent><d:title>Somebody</d:title></c:Agent></d:creator>
<c:license r:resource="http://web.resource.org/cc/PublicDomain"/></c:Work></r:RDF></metadata>"""


@pytest.fixture(scope="module")
def openclipart():
    return corpora.pairs("openclipart")


def make_pairs(folder: Path, num: int) -> list[corpora.Pair]:
    pairs = []
    for number in range(num):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / f"{number}.png")
        pairs.append(corpora.Pair(key=f"a/{number}", image=folder / f"{number}.png", caption=f"ß {number}", title="t"))
    return pairs


def test_metadata_is_read_up_to_a_break_in_the_drawing():
    metadata = corpora.read_metadata((SVG.format(description="Runs!") + "<broken <<<").encode())
    assert metadata.title == "A red fox", "the creator's name is no title"
    assert metadata.caption == "A red fox. Runs! Keywords: wild animal."
    assert metadata.public_domain


def test_a_description_that_repeats_the_title_is_said_once():
    assert corpora.read_metadata(SVG.format(description="a RED fox.").encode()).caption.count("fox") == 1


def test_hostile_or_broken_metadata_is_refused():
    bomb = '<!DOCTYPE svg [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + SVG.format(description="&b;")
    external = '<!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + SVG.format(description="&a;")
    for svg in (bomb, external, SVG[:300], "", "no xml", "<svg/>"):
        assert corpora.read_metadata(svg.encode()) is None


def test_too_large_metadata_is_refused(monkeypatch):
    svg = SVG.format(description="").encode()
    monkeypatch.setattr(corpora, "MAX_SVG_BYTES", len(svg) - 1)
    assert corpora.read_metadata(svg) is None


def test_tars_hold_the_bytes_and_no_times(tmp_path):
    pairs = make_pairs(tmp_path, 5)
    paths = corpora.write_tars(pairs, tmp_path, "made", per_tar=2)
    assert [path.name for path in paths] == ["made-00000.tar", "made-00001.tar", "made-00002.tar"]
    with tarfile.open(paths[1]) as tar:
        assert tar.getnames() == ["a/2.png", "a/2.txt", "a/3.png", "a/3.txt"]
        assert tar.extractfile("a/3.png").read() == (tmp_path / "3.png").read_bytes()
        assert tar.extractfile("a/3.txt").read().decode() == "ß 3"
        assert {(info.mtime, info.uid, info.uname) for info in tar} == {(0, 0, "")}
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in corpora.write_tars(pairs, tmp_path, "made", per_tar=2)] == before


def test_jsonl_lines(tmp_path):
    pairs = make_pairs(tmp_path, 2)
    lines = corpora.write_jsonl(pairs, tmp_path / "made.jsonl").read_text("utf-8").splitlines()
    assert json.loads(lines[1]) == {"image_path": str(tmp_path / "1.png"), "text_prompt": "ß 1"}


def test_names_that_give_one_key_are_numbered(tmp_path, monkeypatch):
    for name, caption in {"a.b": "Dot.\nde=Punkt", "a b": "Space.", "a-b": "Hyphen.", "c": " \nde=Leer"}.items():
        (tmp_path / f"{name}.png").write_bytes(b"picture")
        (tmp_path / f"{name}.txt").write_text(caption)
    (tmp_path / "link.png").symlink_to("c.png")
    (tmp_path / "no-caption.png").write_bytes(b"picture")
    monkeypatch.setattr(corpora, "TUXPAINT", tmp_path)
    found = [(pair.key, pair.caption) for pair in corpora.pairs("tuxpaint")]
    assert found == [("a-b", "Space."), ("a-b-2", "Hyphen."), ("a-b-3", "Dot.")]


@pytest.mark.slow
@needs_openclipart
def test_openclipart_has_its_pairs(openclipart):
    keys = [pair.key for pair in openclipart]
    assert len(keys) >= 6_500
    assert keys == sorted(set(keys))
    assert all(re.fullmatch(r"[A-Za-z0-9_/-]{1,90}", key) for key in keys)
    assert all(pair.caption and pair.title and not pair.image.is_symlink() for pair in openclipart)


@needs_openclipart
def test_openclipart_keeps_its_decompression_bombs(openclipart):
    assert sum(corpora.num_pixels(pair.image) > Image.MAX_IMAGE_PIXELS for pair in openclipart) >= 3


@needs_tuxpaint
def test_stamps_have_english_captions():
    pairs = corpora.pairs("tuxpaint")
    captions = {pair.key: pair.caption for pair in pairs}
    assert len(pairs) >= 700
    assert captions["animals/amphibians/frog-1"] == "A frog."
    assert not any("=" in caption for caption in captions.values()), "translations begin on the second line"


@needs_tuxpaint
def test_command_line(tmp_path):
    corpora.main([str(tmp_path), "--corpus", "tuxpaint", "--limit", "7", "--per-tar", "4"])
    corpora.main([str(tmp_path), "--corpus", "tuxpaint", "--limit", "7", "--format", "jsonl"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "tuxpaint-00000.tar",
        "tuxpaint-00001.tar",
        "tuxpaint.jsonl",
    ]
    assert len((tmp_path / "tuxpaint.jsonl").read_text().splitlines()) == 7
