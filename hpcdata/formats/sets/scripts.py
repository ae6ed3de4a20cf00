"""The words of the documents' scripts (`jobs/ov_*.py`) as those of `hpcdata convert sets`."""

from __future__ import annotations

import os

from hpcdata.base.command import Parser, path


def words_of(script: str, name: str, doc: str | None) -> list[str]:
    """What was typed behind `script`. name: of the folder of sets, in $HPCDATA_DATA_ROOT and $HPCDATA_TARGET_ROOT."""
    source = os.path.join(os.environ.get("HPCDATA_DATA_ROOT", ""), name)
    target = os.path.join(os.environ.get("HPCDATA_TARGET_ROOT", "converted"), name)
    parser = Parser(script, doc, prog="jobs/{}.py")
    parser.add_argument("--source-root", type=path, default=source, help="folder of the sets")
    parser.add_argument("--target-root", type=path, default=target, help="folder to make them in")
    parser.add_argument("--cache-dir", help="not needed: Parquet is read where it is")
    known, others = parser.parse_known_args()
    if not os.path.isdir(known.source_root):
        parser.error(
            f"{os.path.abspath(known.source_root)} is no folder: --source-root names the folder of the sets, or "
            f"HPCDATA_DATA_ROOT one that holds {name}"
        )
    mapping = os.path.join(known.source_root, "JSON_Mapping.csv")
    there = [f"--mapping={mapping}"] if os.path.isfile(mapping) else []
    return [known.source_root, known.target_root, *there, *others]  # one that is typed stands last, and counts
