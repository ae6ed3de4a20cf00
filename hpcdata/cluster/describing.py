"""What came of a launch, in words and as plain values for `--json`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from hpcdata.base.command import to_type
from hpcdata.cluster.finish import Finished
from hpcdata.cluster.launching import Estimated, Launched
from hpcdata.cluster.local import LocalEnd
from hpcdata.cluster.runs import Submitted
from hpcdata.report import summary
from hpcdata.runs.rejects import may_come
from hpcdata.work import estimate

_FINISH_LINE = "finish    job {} submits again what is missing, then combines and verifies"
_OWN_DATA = (
    "python -m hpcdata.launch +experiments='[webdataset,tokenize]' image.tokenizer=embedded text.tokenizer=embedded "
    "data.raw_data_dir='/data/*.tar' data.token_output_dir=/out cluster=local"
)


def describe(launched: Launched) -> str:
    """What a person needs to know of it; empty when the log and `complaints` have said all."""
    text = _describe(launched)
    if launched.replaced:
        text += f"\nreplaces  {', '.join(launched.replaced)}: its tasks make a checkpoint and end"
    return text


def _describe(launched: Launched) -> str:
    status, outcome, output_dir = launched.status, launched.outcome, launched.output_dir
    if launched.kept:
        return _describe_kept(launched)
    if status and outcome:
        return f"finished  {status.combined}: {outcome.account}, {outcome.reason}"
    if launched.submitted:
        return _describe_submission(launched.submitted, launched)
    if launched.finished:
        return _describe_finished(launched.finished, output_dir)
    if status is None:
        return ""
    if launched.config.cluster.kind == "slurm":
        return "\n".join(["all shards are committed", *_next_lines(launched)])
    again = "not finished: run the same line again to continue"
    ends = _next_lines(launched) if status.is_finished else [again]
    return "\n".join([summary.describe(status, output_dir), *ends])


def _next_lines(launched: Launched) -> list[str]:
    step = next_step(launched)
    return [] if step is None else [f"next      {step}"]


def complaints(ended: LocalEnd) -> str:
    """Why tasks on this machine did not end well; empty when they did."""
    if ended.was_interrupted:
        return "stopped after a checkpoint: run the same line again to continue"
    return "\n".join(
        "\n  ".join([f"a task ended with {failure.ending}, {failure.log}:", *failure.tail])
        for failure in ended.failures
    )


def describe_estimate(estimated: Estimated) -> str:
    found = estimated.found
    if found is None:
        return f"all shards of {estimated.output_dir} are committed"
    text = estimate.describe(found, estimated.config, max_array_size=estimated.max_array_size)
    return "\n".join([text, *estimated.output_lines])


def next_step(launched: Launched) -> str | None:
    """The line to type; None when nothing is left to do, or when other jobs do it."""
    status, submitted = launched.status, launched.submitted
    if status is None or not (status.is_finished or submitted or launched.kept):
        return to_type("resume", launched.output_dir)
    if status.combined or launched.finished or launched.kept or (submitted and submitted.finish_id):
        return None
    return to_type("combine", launched.output_dir)


def to_mapping(launched: Launched) -> dict[str, Any]:
    """What `--json` prints."""
    finished, submitted, local = launched.finished, launched.submitted, launched.local
    return {
        "run": str(launched.output_dir),
        "exit_code": launched.exit_code,
        "status": dataclasses.asdict(launched.status) if launched.status else None,
        "submitted": {**dataclasses.asdict(submitted), "logs": str(submitted.logs)} if submitted else None,
        "kept": list(launched.kept),
        "replaced": list(launched.replaced),
        "dataset": _dataset_to_mapping(finished) if finished else None,
        "failures": [{"ending": item.ending, "log": str(item.log)} for item in local.failures] if local else [],
        "next": next_step(launched),
    }


def estimate_to_mapping(estimated: Estimated) -> dict[str, Any]:
    found = estimated.found
    values = None
    if found:
        values = {**dataclasses.asdict(found), "counts": found.counts.to_mapping(), "work_s": found.work_s}
    return {"run": str(estimated.output_dir), "estimate": values}


def _dataset_to_mapping(finished: Finished) -> dict[str, Any]:
    manifest = finished.manifest
    return {
        "path": str(manifest.folder),
        "counts": manifest.counts.to_mapping(),
        "content_digest": manifest.content_digest,
        "parts": len(manifest.parts),
        "problems": list(finished.problems),
        "target": str(manifest.target) if manifest.target else None,
        "picture": str(finished.picture) if finished.picture else None,
    }


def _describe_submission(submitted: Submitted, launched: Launched) -> str:
    lines = [f"submitted {', '.join(submitted.job_ids) or 'no tasks, all shards are committed'}"]
    if submitted.job_ids:
        lines[0] += f" ({submitted.num_tasks} tasks)"
    if submitted.finish_id:
        lines.append(_FINISH_LINE.format(submitted.finish_id))
    if submitted.problem:
        lines.append(f"note      {submitted.problem}")
    lines += [f"logs      {submitted.logs}", f"progress  {to_type('status', launched.output_dir)}"]
    if submitted.finish_id is None:
        lines.append(f"then      {to_type('combine', launched.output_dir)}")
    return "\n".join([*lines, f"stop      {to_type('cancel', launched.output_dir)}"])


def _describe_kept(launched: Launched) -> str:
    text = f"{', '.join(launched.kept)} are still in the queue: nothing is submitted (key=value replaces them)"
    return text + ("\n" + _FINISH_LINE.format(launched.submitted.finish_id) if launched.submitted else "")


def _describe_finished(finished: Finished, output_dir: Path) -> str:
    manifest = finished.manifest
    lines = [
        f"account   {manifest.counts.describe()}",
        f"dataset   {manifest.folder}, {'FAILED' if finished.problems else 'verified'}",
        *(f"  {problem}" for problem in finished.problems),
    ]
    if finished.problems:
        return "\n".join(lines)
    lines += [f"rejects   {line}" for line in may_come(manifest.counts.rejected, output_dir)]
    if manifest.target:
        lines.append(f"export    {manifest.target}")
    if not finished.loader:
        opened = f"from hpcdata.multimodal import get_dataset; get_dataset({str(output_dir)!r})"
        has_files = next(manifest.folder.glob("parts/*/records"), None) is not None
        what = f"its files are {manifest.folder}/parts/*/records/*" if has_files else f"open it with {opened}"
        if manifest.target:
            what = f"its files are in {manifest.target}"
        return "\n".join([*lines, f"next      {what}; {to_type('status', output_dir)}"])
    lines.append(f"loader    {finished.loader}")
    if finished.picture:
        lines.append(f"picture   {finished.picture}")
    return "\n".join([*lines, "", *_next_steps(output_dir, has_picture=bool(finished.picture))])


def _next_steps(output_dir: Path, *, has_picture: bool) -> list[str]:
    return [
        f"1. look at {'the picture, and at ' if has_picture else ''}the numbers: {to_type('status', output_dir)}",
        f"2. your own data: {_OWN_DATA}",
        "3. in training: from hpcdata import TokenDataset, TokenLoader; "
        f"loader = TokenLoader(TokenDataset({str(output_dir)!r}), global_batch_size=8)",
    ]
