"""Visualize: examples of a dataset as a page, before and after preprocessing.

    hpcdata visualize /data/pairs OUT                       writes OUT/index.html
    hpcdata visualize pixmo_cap OUT --split validation --num_examples 20 --shuffle

The dataset is a name (see hpcdata.multimodal.register) or a path of anything that hpcdata reads. Pictures have their
points and boxes, tokens are colored by what they are and by whether they are learned, branch by branch. The page opens
without a network, and has a field to search in.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpcdata.base.command import DONE, FAILED, Options, Parser, path, say
from hpcdata.base.errors import UserError

if TYPE_CHECKING:
    from hpcdata.multimodal.datasets.base import Dataset

_OF_PREPROCESSOR = (
    ("crop_mode", str, "resize, overlap-and-resize, overlap-and-resize-c2"),
    ("max_crops", int, "the most crops of a picture"),
    ("prompt_templates", str, "none, uber_model, uber_model_v2"),
    ("system_prompt", str, "none, style, demo_or_style, style_and_length..."),
    ("message_format", str, "role, none, chatml, template, or a file of Jinja: how turns are written"),
    ("loss_token_weighting", str, "none, root_subsegments..."),
)
"""Options that are the preprocessor's; by default as it has them."""
_OF_VIDEOS = ("max_frames", "frame_sample_mode")
"""Options that Molmo's script has besides."""


def parser() -> Parser:
    parser = Parser("visualize", __doc__)
    parser.add_argument("dataset", type=path, help="a name, or a path of data")
    parser.add_argument("out", type=path, help="the folder for index.html")
    parser.add_argument("--split", default="train", help="of a named set or a folder (default: %(default)s)")
    parser.add_argument(
        "--image_root",
        "--image-root",
        type=path,
        metavar="DIR",
        help="where names of pictures start (the folder of each file)",
    )
    parser.add_argument("--num_examples", "--num-examples", type=int, default=100)
    parser.add_argument("--shuffle", action="store_true", help="examples at random, and not the first ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eval", action="store_true", help="as for evaluation: nothing is drawn at random")
    parser.add_argument("--inference", action="store_true", help="as for inference: the last answer is left out")
    parser.add_argument("--show_crops", "--show-crops", action="store_true", help="what the model sees of pictures")
    parser.add_argument("--show_patches", "--show-patches", action="store_true", help="every token of a picture")
    parser.add_argument("--tokenizer", type=path, default="embedded", help="a file, a folder, or embedded")
    parser.add_argument("--output_name", "--output-name", default="index.html", help="another name of the page")
    for name, kind, words in _OF_PREPROCESSOR:
        spellings = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
        parser.add_argument(*spellings, type=kind, help=words)
    for name in _OF_VIDEOS:
        parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}", help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return parser().run(arguments, _visualize)


def _visualize(options: Options) -> int:
    if of_videos := [name for name in _OF_VIDEOS if getattr(options, name) is not None]:
        raise UserError(f"--{of_videos[0]} is of videos, and hpcdata reads pictures and texts: leave it out")
    from hpcdata.multimodal.config import MolmoPreprocessorConfig
    from hpcdata.multimodal.gallery.showing import Look
    from hpcdata.multimodal.gallery.writing import write_page

    given = {name: getattr(options, name) for name, _, _ in _OF_PREPROCESSOR if getattr(options, name) is not None}
    config = MolmoPreprocessorConfig(tokenizer=options.tokenizer, **given)
    preprocessor = config.build_preprocessor(
        for_inference=options.inference, is_training=not (options.eval or options.inference)
    )
    written = write_page(
        _dataset(options),
        preprocessor,
        options.out,
        name=f"{options.dataset}, {options.split}",
        num_examples=options.num_examples,
        shuffle=options.shuffle,
        seed=options.seed,
        look=Look(crops=options.show_crops, patches=options.show_patches),
        file_name=options.output_name,
    )
    say(f"mean tokens {written.mean_tokens:.1f}, mean crops {written.mean_crops:.1f}")
    for reason, count in written.rejects.items():
        say(f"rejected {count}: {reason}")
    if "missing_image" in written.rejects:
        where = options.image_root or "the folder of each file"
        say(f"pictures were looked for in {where}: --image-root names the folder where their names start")
    say(f"{written.num_shown} examples in {written.path}: open it in a browser")
    return FAILED if written.rejects.total() == written.num_shown else DONE


def _dataset(options: Options) -> Dataset:
    if options.image_root is None:
        from hpcdata.multimodal.datasets.registry import get_dataset

        return get_dataset(options.dataset, split=options.split)
    from hpcdata.multimodal.datasets.sources import SourceDataset

    path, root = (os.path.expanduser(name) for name in (options.dataset, options.image_root))
    if not os.path.isdir(root):
        raise UserError(f"--image-root={options.image_root} is no folder")
    return SourceDataset(path, options.split, image_root=root)


if __name__ == "__main__":
    sys.exit(main())
