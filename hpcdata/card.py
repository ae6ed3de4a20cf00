"""Card: writes what a dataset is, for those who get it: sources, licences, account, sizes, settings, digests, loading.

    hpcdata card OUT                              OUT/card.md and OUT/card.html, of the dataset that was made of a run
    hpcdata card OUT --set pixmo_cap --set cc3m   names more data sets that it came from, as the catalogue knows them
    hpcdata card OUT --license cc-by-4.0 --title 'Our pairs' --language en --note 'Made for ...'
    hpcdata card EXPORT --out EXPORT/README       of an export; README.md is what hubs show

The Markdown begins with the lines that hubs read: licence, size, tags. The page is one file that needs no network.
Sets that `hpcdata download` has brought are found by the folders of the inputs, and an export remembers them. No path
of this machine is in them.
Nobody but you knows the licence of what was made: without `--license` none is named.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpcdata.base.command import DONE, Options, Parser, path, say

if TYPE_CHECKING:
    from hpcdata.report.card.model import About, Card, SourceSet


def parser() -> Parser:
    parser = Parser("card", __doc__)
    parser.add_argument("path", type=path, help="output directory of a combined run, a dataset, or an export")
    parser.add_argument(
        "--out", type=path, metavar="PATH", help="PATH.md and PATH.html; by default `card` in the run's folder"
    )
    parser.add_argument("--title", help="by default the name of the folder")
    parser.add_argument("--license", metavar="ID", default="", help="of what was made, as a hub calls it: cc-by-4.0")
    parser.add_argument("--language", metavar="CODE", action="append", default=[], help="of its texts: en")
    parser.add_argument("--set", metavar="NAME", action="append", default=[], help="a data set that it came from")
    parser.add_argument(
        "--catalogue", type=path, metavar="FOLDER", action="append", default=[], help="of entries of your own"
    )
    parser.add_argument("--note", default="", help="a paragraph of yours")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return parser().run(arguments, _write)


def _write(options: Options) -> int:
    from hpcdata.base import files
    from hpcdata.formats.target import is_target
    from hpcdata.report.card import markdown, page

    path = Path(options.path).absolute()
    about = _about(options, path)
    card = _of_export(path, about) if is_target(path) else _of_dataset(path, about)
    out = options.out or str(path / "card" if (path / "plan.json").is_file() else path.with_name(f"{path.name}.card"))
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    for ending, text in ((".md", markdown.render(card)), (".html", page.render(card))):
        files.write_atomic(Path(out + ending), text.encode("utf-8", "backslashreplace"))
        say(f"{out}{ending}")
    return DONE


def _about(options: Options, path: Path) -> About:
    from hpcdata.report.card.model import About

    return About(
        title=options.title or path.name,
        licence=options.license,
        languages=options.language,
        sets=_sets(options, path),
        note=options.note,
    )


def _sets(options: Options, path: Path) -> list[SourceSet]:
    """Those that inputs are of, as an export says or the catalogue knows, and named ones."""
    from hpcdata.formats.origins import sets_named, with_sets
    from hpcdata.formats.target import is_target, read_target
    from hpcdata.report.card.model import SourceSet

    origins = read_target(path).origins if is_target(path) else {}
    found = with_sets(origins, sets_named(path, options.set, options.catalogue))
    fields = ("name", "licence", "where", "note")
    return [SourceSet(**{field: str(item.get(field) or "") for field in fields}) for item in found]


def _of_dataset(path: Path, about: About) -> Card:
    from hpcdata.dataset.manifest import read_manifest
    from hpcdata.report.card.gathering import card_of

    return card_of(read_manifest(path), about)


def _of_export(path: Path, about: About) -> Card:
    from hpcdata.base import units
    from hpcdata.formats.target import read_target
    from hpcdata.report.card.gathering import account_of, said_of, section, sources_of
    from hpcdata.report.card.model import Card, Code, Table

    target = read_target(path)
    source = target.source
    identity = [
        ("content digest of the dataset", source.content_digest),
        ("fingerprint of its plan", source.fingerprint),
        ("hpcdata", target.code_version),
    ]
    facts = [(name, str(value)) for name, value in {**target.options, **target.facts}.items() if value is not None]
    sections = [
        *section("About", said_of(about)),
        *section("Sources", sources_of(target.origins, about.sets)),
        *section("Account", account_of(target.counts, {})),
        *section("Form", [Table(columns=("what", "value"), rows=facts, numbers_from=9)] if facts else []),
        *section("Identity", [Table(columns=("", ""), rows=[row for row in identity if row[1]], numbers_from=9)]),
        *section("Checking", [Code(text="hpcdata verify FOLDER      # reads every byte back", language="bash")]),
    ]
    summary = f"{units.counted(target.counts.written, 'sample')} of stage={source.stage}, in the form {target.format}."
    tags = ("hpcdata", target.format)
    return Card(about=about, summary=summary, num_samples=target.counts.written, tags=tags, sections=sections)


if __name__ == "__main__":
    sys.exit(main())
