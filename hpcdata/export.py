"""Export: writes a dataset in the form that another system's own loader reads.

    hpcdata export DATASET OUT --format unidisc       tokens: one padded TensorDict, as UniDisc's loader reads it
    hpcdata export DATASET OUT --format webdataset    copied records: tars whose samples have names of their own
    hpcdata export DATASET OUT --format energon       the same, with the files that Megatron Energon needs
    hpcdata export DATASET OUT --format llava         copied JSON lines: one JSON and its pictures, for LLaVA's trainer
    hpcdata export DATASET OUT --format hf            copied rows: what datasets.load_from_disk opens
    hpcdata export DATASET OUT --format jsonl         copied JSON lines as they are, with their files

OUT appears at once, when it is complete; the same line again finds it. `hpcdata verify OUT` reads it back. Of records
that `stage=copy` has copied, files are hard links where their bytes do not change.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hpcdata.base.command import DONE, Options, Parser, say
from hpcdata.base.errors import UserError
from hpcdata.formats import unidisc_options
from hpcdata.formats.records import options as records

_OPTIONS = {"unidisc": unidisc_options.NAMES, **records.OPTIONS}
"""Format -> its options."""
FORMATS = tuple(_OPTIONS)
_COMMON = {"dataset", "out", "format", "json"}


def parser() -> Parser:
    parser = Parser("export", __doc__)
    parser.add_argument("dataset", help="a dataset, or the output folder of a combined run")
    parser.add_argument("out", help="folder to make; must not exist")
    parser.add_argument("--format", required=True, choices=FORMATS, help="what the folder is to be")
    records.add_options(parser)
    unidisc_options.add_options(parser)
    parser.add_json()
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return parser().run(arguments, _export)


def _export(options: Options) -> int:
    _require_options_of(options)
    return _unidisc(options) if options.format == "unidisc" else _records(options)


def _require_options_of(options: Options) -> None:
    """Raises UserError for an option of another format."""
    default = parser().get_default
    for name, value in vars(options).items():
        if name not in (*_COMMON, *_OPTIONS[options.format]) and value != default(name):
            raise UserError(f"--{name.replace('_', '-')} is no option of --format {options.format}")


def _records(options: Options) -> int:
    import json

    from hpcdata.formats.records.laying_out import export_records

    made = export_records(options.dataset, options.out, options.format, records.options_of(vars(options)))
    left_out = made.facts.get("left_out", {})
    if options.json:
        values = {"out": str(options.out), "target": made.format, "samples": made.source.num_samples}
        print(json.dumps({**values, "counts": made.counts.to_mapping(), "facts": dict(made.facts)}, indent=1))
        return DONE
    say(f"{made.source.num_samples} samples ({made.format}) in {options.out}")
    if made.facts.get("renamed"):
        say(f"{made.facts['renamed']} samples have other names there, as theirs come again in another tar")
    if left_out:
        told = ", ".join(f"{reason} {number}" for reason, number in left_out.items())
        say(f"{sum(left_out.values())} records have no form there ({told}): {options.out}/left_out.jsonl lists them")
    return DONE


def _unidisc(options: Options) -> int:
    import dataclasses
    import json

    from hpcdata.formats.unidisc import ExportOptions, export_unidisc

    summary = export_unidisc(
        options.dataset,
        options.out,
        ExportOptions(
            block_size=options.block_size,
            max_length=options.max_length,
            add_bos=options.bos,
            add_eos=options.eos,
            pad_id=options.pad_id,
            image_token_id=options.image_token_id,
            sample_ids=options.sample_ids,
            template=options.template,
            system=options.system,
            text_tokenizer=options.text_tokenizer,
            interleaved=options.interleaved,
        ),
    )
    if options.json:
        print(json.dumps({**dataclasses.asdict(summary), "out": str(options.out)}, indent=1))
        return DONE
    say(f"{summary.samples} samples ({summary.kind}, {summary.width} columns) in {options.out}")
    if summary.sample_ids:
        say("sample_ids tell padding; UniDisc's own ids: --pad-id unidisc, for <image> --image-token-id unidisc")
    if summary.truncated_texts or summary.left_out_images:
        say(f"{summary.truncated_texts} samples cut, {summary.left_out_images} images left out for want of room")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
