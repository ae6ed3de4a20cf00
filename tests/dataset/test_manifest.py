"""python -m pytest tests/dataset/test_manifest.py"""

import json

import pytest

from hpcdata.base.errors import UserError
from hpcdata.dataset.manifest import parse_manifest, read_manifest
from tests.loading import made


@pytest.fixture
def folder(tmp_path):
    return made.make_dataset(tmp_path / "run" / "dataset", made.split(made.pairs(50)), device="cpu")


def test_reads_what_was_written(folder):
    manifest = read_manifest(folder)
    assert manifest.num_samples == 50
    assert [part.samples for part in manifest.parts] == [7, 0, 1, 30, 12, 0]
    assert manifest.counts.rejected == {"unreadable_image": 2}
    assert manifest.counts.is_balanced()
    assert (manifest.text.eos_id, manifest.image.downsample, manifest.layout.block_size) == (2, 16, 16)
    assert manifest.extra == {"device": "cpu"}


def test_a_run_folder_leads_to_its_dataset(folder):
    assert read_manifest(folder.parent) == read_manifest(folder)


def test_json_round_trip(folder):
    manifest = read_manifest(folder)
    again = parse_manifest(manifest.to_json(), folder)
    assert again == manifest
    assert again.to_json() == manifest.to_json()


def test_without_tokenizers(tmp_path):
    folder = made.make_dataset(tmp_path, [], text=None, image=None, layout={})
    manifest = read_manifest(folder)
    assert (manifest.text, manifest.image, manifest.layout.block_size) == (None, None, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "hpcdata-dataset-2"}, "this version of hpcdata reads 'hpcdata-dataset-1'"),
        ({"id_dtype": "int16"}, "expected uint16 or int32"),
        ({"parts": [{"path": "parts/0"}]}, "damaged"),
        ({"parts": 3}, "damaged"),
        ({"counts": {"inputs": 1}}, "damaged"),
        ({"parts": []}, "its parts hold 0 samples, its account says 50"),
    ],
)
def test_refuses_damage(folder, changes, message):
    body = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps({**body, **changes}))
    with pytest.raises(UserError, match=message):
        read_manifest(folder)


@pytest.mark.parametrize("path", ["../elsewhere", "/etc", "parts/../../x"])
def test_parts_stay_inside(folder, path):
    body = json.loads((folder / "manifest.json").read_bytes())
    body["parts"][0]["path"] = path
    (folder / "manifest.json").write_text(json.dumps(body))
    with pytest.raises(UserError, match="outside the dataset folder"):
        read_manifest(folder)


def test_says_what_a_wrong_path_is(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_manifest(tmp_path / "nothing")
    with pytest.raises(UserError, match="not a dataset"):
        read_manifest(tmp_path)
    (tmp_path / "plan.json").touch()
    with pytest.raises(UserError, match=r"run python -m hpcdata\.combine"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        read_manifest(tmp_path)
