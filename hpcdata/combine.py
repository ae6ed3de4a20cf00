"""Combine: makes one dataset of the committed shards of a run.

    hpcdata combine OUT                           -> OUT/dataset: manifest.json and parts/, by hard links
    hpcdata combine OUT --allow-tmp               takes checkpoints of unfinished shards, and records the gap
    hpcdata combine OUT --move-files              removes the shards that the published dataset holds
    hpcdata combine OUT --compact                 rewrites them into one contiguous part, in constant memory
    hpcdata combine OUT --compact --bake t2i      stores the rows of a layout too: the fastest for its loaders

Killed at any moment, it is simply run again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpcdata.base.command import DONE, FAILED, Options, Parser, complain, path, say

if TYPE_CHECKING:
    from hpcdata.shards.counts import Counts


def parser() -> Parser:
    parser = Parser("combine", __doc__)
    parser.add_run()
    parser.add_argument("--allow-tmp", action="store_true", help="take checkpoints too, record the gap")
    parser.add_argument("--move-files", action="store_true", help="remove shards that the published dataset holds")
    parser.add_argument(
        "--delete-after-combining",
        action="store_true",
        help="remove shards and claims after recomputing every digest of the dataset",
    )
    parser.add_argument("--compact", action="store_true", help="rewrite into one contiguous part, in constant memory")
    parser.add_argument(
        "--bake",
        action="append",
        metavar="LAYOUT",
        help="store the padded rows of a layout, such as t2i or text:max_length=1024; again for another; none: no rows",
    )
    parser.add_argument("--output-dir", type=path, help="where the dataset goes; by default RUN/dataset")
    parser.add_argument("--mem-efficient", action="store_true", help="no effect: memory is always constant")
    parser.add_json()
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return parser().run(arguments, _combine)


def _combine(options: Options) -> int:
    import dataclasses
    import json

    from hpcdata.base.logs import configure
    from hpcdata.dataset.combining import CombineOptions, combine
    from hpcdata.dataset.partlist import when_too_many

    if options.mem_efficient and not options.json:
        say("--mem-efficient needs no setting: combining never holds data in memory")
    configure("combine")
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(CombineOptions)}
    if options.bake is not None:
        from hpcdata.loading.baking import bakings

        values["bake"] = bakings(options.bake)
    manifest = combine(options.run, CombineOptions(**values))
    if options.json:
        values = {"dataset": str(manifest.folder), "counts": manifest.counts.to_mapping(), "parts": len(manifest.parts)}
        values["target"] = str(manifest.target) if manifest.target else None
        values["baked"] = {baked.layout: baked.num_bytes for baked in manifest.baked}
        print(json.dumps({**values, "content_digest": manifest.content_digest}, indent=1))
        return tell_rejected(options.run, manifest.counts)
    say(f"{manifest.folder}: {manifest.counts.describe()}, {len(manifest.parts)} parts")
    for baked in manifest.baked:
        say(f"baked {baked.describe()}")
    say(f"content digest {manifest.content_digest}")
    if manifest.target:
        say(f"{manifest.target}: laid out of it")
    if why := when_too_many(len(manifest.parts), options.run, is_joined=bool(manifest.joined)):
        say(why)
    return tell_rejected(options.run, manifest.counts)


def tell_rejected(run: str, counts: Counts) -> int:
    """Says when more inputs are rejected than the run bears; returns the exit code."""
    from pathlib import Path

    from hpcdata.runs.paths import RunPaths
    from hpcdata.runs.plan import load_plan, load_runtime
    from hpcdata.runs.reject_limit import too_many

    config = load_runtime(run) if RunPaths(run).runtime.exists() else load_plan(run).config
    reason = too_many(counts, config, Path(run))
    if reason:
        complain(reason)
    return FAILED if reason else DONE


if __name__ == "__main__":
    sys.exit(main())
