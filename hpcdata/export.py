"""Export: writes a dataset in the form that another system's own loader reads.

    hpcdata export DATASET OUT --format unidisc       one padded TensorDict, as UniDisc's loader reads it

OUT appears at once, when it is complete.
"""

from __future__ import annotations

import sys
from argparse import BooleanOptionalAction
from collections.abc import Sequence

from hpcdata.base.command import Options, Parser, say

FORMATS = ("unidisc",)


def parser() -> Parser:
    parser = Parser("export", __doc__)
    parser.add_argument("dataset", help="a dataset, or the output folder of a combined run")
    parser.add_argument("out", help="folder to make; must not exist")
    parser.add_argument("--format", required=True, choices=FORMATS, help="unidisc: one padded TensorDict")
    parser.add_argument("--block-size", type=int, help="text columns of pairs (the dataset's, else the longest text)")
    parser.add_argument("--max-length", type=int, help="columns of interleaved samples (the longest sample)")
    boolean = BooleanOptionalAction
    parser.add_argument("--bos", action=boolean, help="begin texts with bos (if the tokenizer has it)")
    parser.add_argument("--eos", action=boolean, help="end texts with eos (if the tokenizer has it)")
    parser.add_argument(
        "--pad-id",
        type=_token_id,
        metavar="ID|unidisc",
        help="id on padding (the tokenizer's pad id, else eos, else 0); unidisc: its [PAD], 32000 with Llama-2",
    )
    parser.add_argument(
        "--image-token-id",
        type=_token_id,
        metavar="ID|unidisc",
        help="what the <image> of data.add_image_token becomes (stays); unidisc: 811",
    )
    parser.add_argument(
        "--sample-ids",
        action=boolean,
        help="mark padding of interleaved samples by sample_ids as well (where its id does not tell it)",
    )
    parser.add_argument(
        "--template",
        metavar="NAME",
        help="what stands around the turns of conversations: chat (the tokenizer's own), unidisc, or a file of Jinja",
    )
    parser.add_argument("--system", metavar="TEXT", help="what the system says where a conversation has none of it")
    parser.add_argument(
        "--text-tokenizer", metavar="FILE", help="the tokenizer, where the dataset is not beside its run"
    )
    parser.add_argument("--interleaved", action="store_true", help="write input_ids and modality even for pairs")
    parser.add_json()
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return parser().run(arguments, _export)


def _token_id(text: str) -> int | str:
    return text if text == "unidisc" else int(text)


def _export(options: Options) -> int:
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
        return 0
    say(f"{summary.samples} samples ({summary.kind}, {summary.width} columns) in {options.out}")
    if summary.sample_ids:
        say("sample_ids tell padding; UniDisc's own ids: --pad-id unidisc, for <image> --image-token-id unidisc")
    if summary.truncated_texts or summary.left_out_images:
        say(f"{summary.truncated_texts} samples cut, {summary.left_out_images} images left out for want of room")
    return 0


if __name__ == "__main__":
    sys.exit(main())
