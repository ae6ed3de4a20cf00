"""Export: writes a dataset in the form that another system's own loader reads.

    hpcdata export DATASET OUT --format megatron      tokens: tokens.bin and tokens.idx, for --data-path OUT/tokens
    hpcdata export DATASET OUT --format mds           tokens: shards of MosaicML Streaming; litdata: chunks of litData
    hpcdata export DATASET OUT --format hf            tokens: a folder for datasets.load_from_disk; jsonl: JSON lines
    hpcdata export DATASET OUT --format liquid        codes and kept texts: a folder that Liquid's training reads
    hpcdata export DATASET OUT --format mds cluster=slurm cluster.array=0-15
                                                      the same as an array; any key of a launch, as key=value
    hpcdata export DATASET OUT --format unidisc       tokens: one padded TensorDict, as UniDisc's loader reads it
    hpcdata export DATASET OUT --format webdataset    copied records: tars whose samples have names of their own
    hpcdata export DATASET OUT --format energon       the same, with the files that Megatron Energon needs
    hpcdata export DATASET OUT --format llava         copied JSON lines: one JSON and its pictures, for LLaVA's trainer
    hpcdata export DATASET OUT --format hf            copied rows: what datasets.load_from_disk opens
    hpcdata export DATASET OUT --format jsonl         copied JSON lines as they are, with their files; --style liquid:
                                                      data_type, text and image_path of Liquid's map-style data set

OUT appears at once, when it is complete; the same line again finds it. `hpcdata verify OUT` reads it back. Of records
that `stage=copy` has copied, files are hard links where their bytes do not change. Those in another form than FORMAT is
made of are copied once more first, in OUT.run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcdata.base.command import DONE, Options, Parser, path, say
from hpcdata.base.errors import UserError
from hpcdata.formats import unidisc_options
from hpcdata.formats.lines import require_place as require_place  # for scripts
from hpcdata.formats.lines import require_sense
from hpcdata.formats.records import options as records
from hpcdata.formats.tokens import options as tokens

_OF_TOKENS = {"unidisc": unidisc_options.NAMES, **tokens.OPTIONS}
FORMATS = tuple(dict.fromkeys([*_OF_TOKENS, *records.OPTIONS]))
_COMMON = {"dataset", "out", "format", "json", "overrides", "run"}


def parser() -> Parser:
    parser = Parser("export", __doc__)
    parser.add_argument("dataset", type=path, help="a dataset, or the output folder of a combined run")
    parser.add_argument("out", type=path, help="folder to make; must not exist")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="where a run makes it: as of launch")
    parser.add_argument("--format", required=True, choices=FORMATS, help="what the folder is to be")
    records.add_options(parser)
    tokens.add_options(parser)
    unidisc_options.add_options(parser)
    parser.add_json()
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return parser().run(arguments, _export)


def _export(options: Options) -> int:
    require_sense(options.out, options.overrides, run=options.run, dataset=options.dataset)
    has_tokens = _has_tokens(options)
    _require_options_of(options, (_OF_TOKENS if has_tokens else records.OPTIONS)[options.format])
    if not has_tokens:
        return _records(options)
    return _unidisc(options) if options.format == "unidisc" else _tokens(options)


def _has_tokens(options: Options) -> bool:
    """Raises UserError for a format that has no place for what the dataset holds."""
    from hpcdata.dataset.manifest import read_manifest

    manifest = read_manifest(options.dataset)
    has_tokens = bool(manifest.id_dtype)
    able = _OF_TOKENS if has_tokens else records.OPTIONS
    if options.format not in able:
        what = "tokens" if has_tokens else f"records (stage {manifest.stage})"
        raise UserError(f"--format {options.format}: {options.dataset} holds {what}, which go to {', '.join(able)}")
    if options.overrides and options.format == "unidisc":
        raise UserError(f"{options.overrides[0]}: --format {options.format} takes no keys of a launch")
    return has_tokens


def _require_options_of(options: Options, names: Sequence[str]) -> None:
    """Raises UserError for an option of another format."""
    default = parser().get_default
    for name, value in vars(options).items():
        if name not in (*_COMMON, *names) and value != default(name):
            raise UserError(f"--{name.replace('_', '-')} is no option of --format {options.format}")


def _tokens(options: Options) -> int:
    from hpcdata.base.logs import configure
    from hpcdata.cluster.passing.through import run_beside, run_through
    from hpcdata.config.compose import compose
    from hpcdata.formats.target import read_target
    from hpcdata.launch import tell

    configure("export")
    run = options.run or str(run_beside(options.out))
    passed = run_through(compose(tokens.launch_line(vars(options), run=run)), keep=options.run is not None)
    if passed.target is None and passed.launched:
        code = tell(passed.launched, as_json=options.json)
        say(f"{run} keeps what is done: the same line again goes on", file=sys.stderr)
        return code
    counts, out = passed.counts, str(passed.target)
    rejects = [f"  {reason} {number}" for reason, number in sorted(counts.rejected.items())]
    rejects += [f"  {out}/left_out.jsonl lists them"] if rejects else []
    values = {"out": out, "target": options.format, "counts": counts.to_mapping()}
    return _say(options, values, [f"{out}: {read_target(Path(out)).describe()}", *rejects])


def _records(options: Options) -> int:
    from hpcdata.cluster.passing.recopying import export_copied

    return _say(options, *export_copied(vars(options)))


def _unidisc(options: Options) -> int:
    return _say(options, *unidisc_options.export(vars(options)))


def _say(options: Options, values: Mapping[str, Any], lines: Sequence[str]) -> int:
    say(json.dumps(values, indent=1) if options.json else "\n".join(lines))
    return DONE


if __name__ == "__main__":
    sys.exit(main())
