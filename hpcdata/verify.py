"""Verify: reads everything back, and says whether it is what was promised.

    hpcdata verify OUT                      a run, and the dataset that was made of it; or a dataset; or an export
    hpcdata verify OUT --prove 64           makes 64 drawn samples again from the raw inputs, and compares everything

Every file must have its sha256, every input must be written, rejected or a duplicate exactly once, and the content
digest is computed again from the examples.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hpcdata.base.command import DONE, FAILED, UNFINISHED, Options, Parser, path, say


def parser() -> Parser:
    parser = Parser("verify", __doc__)
    parser.add_argument("path", type=path, help="output directory of a run, a dataset, or an export")
    parser.add_json("print the report as JSON")
    parser.add_argument("--prove", type=int, metavar="N", help="make N drawn samples again and compare everything")
    parser.add_argument("--seed", type=int, help="with --prove: draws the same samples again")
    parser.add_argument(
        "--accept-changed", action="store_true", help="with --prove: read inputs that changed since they were planned"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return parser().run(arguments, lambda options: _verify(options) if options.prove is None else _prove(options))


def _verify(options: Options) -> int:
    from hpcdata.base import digest
    from hpcdata.combine import tell_rejected
    from hpcdata.dataset.verifying import verify
    from hpcdata.formats.target import is_target
    from hpcdata.runs.paths import RunPaths

    if is_target(Path(options.path)):
        return _verify_export(Path(options.path), as_json=options.json)
    reports = verify(options.path)
    if options.json:
        print(json.dumps([report.to_mapping() for report in reports], indent=1))
    for report in () if options.json else reports:
        say(f"{report.path}: {report.counts.describe()}: {'FAILED' if report.problems else 'verified'}")
        for problem in report.problems:
            say(f"  {problem}")
        say(f"  content digest {digest.to_hex(report.content_digest)}")
    if any(report.problems for report in reports):
        return UNFINISHED if all(report.only_lacks_shards for report in reports if report.problems) else FAILED
    is_run = reports and RunPaths(options.path).runtime.exists()
    return tell_rejected(options.path, reports[-1].counts) if is_run else DONE


def _verify_export(path: Path, *, as_json: bool) -> int:
    from hpcdata.formats.target import problems_of, read_target

    problems, target = problems_of(path), read_target(path, even_if_changed=True)
    values = {"path": str(path), "target": target.format, "ok": not problems, "problems": problems}
    if as_json:
        print(json.dumps([{**values, "counts": target.counts.to_mapping()}], indent=1))
        return FAILED if problems else DONE
    say(f"{path}: {target.describe()}: {'FAILED' if problems else 'verified'}")
    for problem in problems:
        say(f"  {problem}")
    return FAILED if problems else DONE


def _prove(options: Options) -> int:
    import dataclasses

    from hpcdata.work.prove import prove

    proof = prove(options.path, options.prove, options.seed, accept_changed=options.accept_changed)
    if options.json:
        print(json.dumps(dataclasses.asdict(proof), indent=1))
        return FAILED if proof.differences else DONE
    for difference in proof.differences:
        say(f"  {difference}")
    say(
        f"{options.path}: {proof.equal} of {proof.drawn} drawn samples "
        f"(of {proof.num_written} written, seed {proof.seed}) "
        f"are the same, with their keys, when they are made again on {proof.device} "
        f"({proof.encoded} samples in their batches): {'FAILED' if proof.differences else 'proved'}"
    )
    return FAILED if proof.differences else DONE


if __name__ == "__main__":
    sys.exit(main())
