"""A manifest -> a card: sources, account, settings, sizes, digests, and how to load it. No path of this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpcdata.base import units
from hpcdata.base.errors import UserError
from hpcdata.config import values as configuration
from hpcdata.config.schema import RunConfig
from hpcdata.dataset.manifest import Manifest
from hpcdata.report.card.figures import sizes_of
from hpcdata.report.card.model import About, Block, Card, Code, Section, SourceSet, Table
from hpcdata.report.card.reasons import words
from hpcdata.runs.stage import find_stage
from hpcdata.shards.counts import Counts

MOST_INPUTS = 50
_UNSAID = ("stage", "measure.written_by")
"""Said elsewhere, or of no use to a reader."""
_KINDS = {
    "tokenize": ("ids of texts and codes of pictures", ("tokens",)),
    "copy": ("raw records", ("raw",)),
    "fetch": ("raw records with the pictures of their URLs", ("raw", "urls")),
    "convert": ("records as JSON and files", ("raw", "llava")),
    "measure": ("sizes of pictures and lengths of texts of raw records, which stay where they are", ("measures",)),
    "export": ("tokens in the form of another system", ("tokens",)),
}
_LOADING = {
    "tokenize": """\
from hpcdata import TokenDataset

dataset = TokenDataset("DATASET")
example = dataset[0]  # its spans: ids of texts and codes of pictures
""",
    "measure": """\
from hpcdata.multimodal import MeasuredDataset

dataset = MeasuredDataset("DATASET")  # opens the raw records where they are
""",
    "webdataset": """\
import glob
import webdataset

dataset = webdataset.WebDataset(sorted(glob.glob("DATASET/parts/*/records/*.tar")), shardshuffle=False)
""",
    "jsonl": """\
import glob, json, os

for path in sorted(glob.glob("DATASET/parts/*/records/*.jsonl")):
    for line in open(path):
        record = json.loads(line)  # paths in it start from os.path.dirname(path)
""",
}


def card_of(manifest: Manifest, about: About) -> Card:
    """Reads columns of parts for sizes, and nothing else of them."""
    stage = manifest.stage or "tokenize"
    kind, tags = _KINDS.get(stage, (f"what stage={stage} writes", (stage,)))
    counts = manifest.counts
    parts = units.counted(len(manifest.parts.path), "part")
    summary = f"{units.counted(manifest.num_samples, 'sample')}: {kind}, in {parts}."
    sections = [
        *section("About", said_of(about)),
        *section("Sources", sources_of(manifest.named_inputs(), about.sets)),
        *section("Account", account_of(counts, manifest.extra)),
        *section("Sizes", _sizes(manifest)),
        *section("Settings", _settings(manifest.extra.get("config"), stage)),
        *section("Tokenizers", _tokenizers(manifest)),
        *section("Identity", [_identity(manifest)]),
        *section("Loading", _loading(manifest.extra.get("config"), stage)),
    ]
    return Card(
        about=about, summary=summary, num_samples=manifest.num_samples, tags=("hpcdata", *tags), sections=sections
    )


def said_of(about: About) -> list[Block]:
    """Note, licence and languages; that nobody has said a licence, too."""
    licence = f"Licence: {about.licence}." if about.licence else "Nobody has said under which licence it stands."
    languages = f"Languages: {', '.join(about.languages)}." if about.languages else ""
    return [item for item in (about.note, licence, languages) if item]


def section(title: str, blocks: list[Block]) -> list[Section]:
    """None without something in it."""
    return [Section(title=title, blocks=blocks)] if blocks else []


def account_of(counts: Counts, extra: Mapping[str, Any]) -> list[Block]:
    """What became of every input, and what was no input."""
    blocks: list[Block] = [f"{counts.describe()}."]
    if counts.rejected:
        rejected = sorted(counts.rejected.items(), key=lambda item: (-item[1], item[0]))
        rows = [(reason, words(reason), units.count(number)) for reason, number in rejected]
        blocks.append(Table(columns=("rejected for", "that is", "inputs"), rows=rows, numbers_from=2))
    noted = (
        (counts.truncated_texts, "text", "cut at data.block_size"),
        (counts.fixed_placeholders, "sample", "given markers of pictures (data.placeholders)"),
        (counts.unapplied_profiles, "picture", "with a color profile that is not applied"),
    )
    blocks += [f"{units.counted(number, noun)} {what}." for number, noun, what in noted if number]
    items = extra.get("inputs")
    left_out = sum(_number(item.get("left_out_by_sampling")) for item in _dicts(items))
    if left_out:
        blocks.append(f"{units.counted(left_out, 'record')} of the inputs left out by sampling, as the mix says.")
    not_read = _dicts(extra.get("not_read"))
    if not_read:
        files = [(str(item.get("ending")), units.count(_number(item.get("count")))) for item in not_read[:MOST_INPUTS]]
        blocks.append(Table(columns=("files in the folders of inputs that were not read", "files"), rows=files))
    gaps = extra.get("gaps")
    if isinstance(gaps, list) and gaps:
        blocks.append(f"Combined early: {units.counted(len(gaps), 'shard')} missing.")
    return blocks


def sources_of(origins: Mapping[str, Any], sets: Sequence[SourceSet]) -> list[Block]:
    """Data sets, and the first inputs. origins: as `formats.origins` has them."""
    blocks: list[Block] = []
    if sets:
        rows = [(item.name, item.licence or "nobody has said", item.where, item.note) for item in sets]
        blocks.append(Table(columns=("data set", "licence", "where", "note"), rows=rows, numbers_from=9))
    shown = [
        (str(item.get("label")), units.count(_number(item.get("samples"))), units.size(_number(item.get("size"))))
        for item in _dicts(origins.get("inputs"))
    ]
    if shown:
        blocks.append(Table(columns=("input", "samples", "size"), rows=shown))
    if (number := _number(origins.get("num_inputs"))) > len(shown):
        samples = units.count(_number(origins.get("num_samples")))
        blocks.append(f"These are the first of {units.count(number)} inputs with {samples} samples.")
    return blocks


def _sizes(manifest: Manifest) -> list[Block]:
    counts = manifest.counts
    totals = [
        (name, units.count(number))
        for name, number in (
            ("text ids", counts.text_tokens),
            ("image codes", counts.image_tokens),
            ("pictures", counts.images),
        )
        if number
    ]
    blocks: list[Block] = [Table(columns=("in all", ""), rows=totals)] if totals else []
    table, of = sizes_of(manifest)
    return [*blocks, *([table] if table is not None else []), *([of] if of else [])]


def _settings(stored: object, stage: str) -> list[Block]:
    """Those that are not the defaults, of all that change what is written."""
    try:
        config = configuration.from_mapping(stored if isinstance(stored, dict) else {})
        found = find_stage(stage)
        given, usual = (
            found.settings(item.semantic_fields(with_added=True)) for item in (config, RunConfig(stage=stage))
        )
    except (UserError, KeyError, TypeError, ValueError):
        return []
    rows = [(name, str(value)) for name, value in given.items() if value != usual.get(name) and name not in _UNSAID]
    blocks: list[Block] = [f"stage={stage}; what is not named here has its default."]
    return [*blocks, Table(columns=("setting", "value"), rows=rows, numbers_from=9)] if rows else blocks


def _tokenizers(manifest: Manifest) -> list[Block]:
    rows = []
    if (text := manifest.text) is not None:
        rows.append(("text", text.engine, f"{units.count(text.vocab_size)} ids", text.sha256))
    if (image := manifest.image) is not None:
        what = f"{units.count(image.codebook_size)} codes, 1/{image.downsample} of a side, {image.precision}"
        rows.append(("image", image.preset, what, image.sha256))
    return [Table(columns=("of", "which", "what", "sha256 of its file"), rows=rows, numbers_from=9)] if rows else []


def _identity(manifest: Manifest) -> Table:
    extra = manifest.extra
    libraries = _dicts(extra.get("libraries"))
    versions = ", ".join(f"{name} {value}" for item in libraries[:1] for name, value in sorted(item.items()))
    rows = [
        ("content digest", manifest.content_digest),
        ("fingerprint of its plan", manifest.fingerprint),
        ("hpcdata", str(extra.get("code_version", ""))),
        ("written on", ", ".join(map(str, extra.get("devices") or []))),
        ("libraries", versions + (f", and {len(libraries) - 1} other sets" if len(libraries) > 1 else "")),
    ]
    return Table(columns=("", ""), rows=[row for row in rows if row[1]], numbers_from=9)


def _loading(stored: object, stage: str) -> list[Block]:
    config = stored if isinstance(stored, dict) else {}
    group = config.get(stage)
    form = str(group.get("format")) if isinstance(group, dict) else ""
    code = _LOADING.get(stage) or _LOADING.get(form)
    check = Code(text="hpcdata verify DATASET      # reads every byte back", language="bash")
    return [Code(text=code), check] if code else [check]


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
