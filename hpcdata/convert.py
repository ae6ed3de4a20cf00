"""Convert: makes files of tables: pictures and JSON, as trainers read them.

    hpcdata convert llava-parquet SRC OUT           Parquet of LLaVA-OneVision and its like: OUT/OUT.json, OUT/image/
    hpcdata convert llava-parquet SRC OUT --name data.jsonl convert.prompt=recap data.placeholders=fix
    hpcdata convert llava-parquet SRC OUT cluster=slurm cluster.array=0-31 cluster.partition=preempt

SRC is a Parquet file, a folder, a glob or a brace list (in quotes). JPEG, PNG and WebP are written as they are, under
their ids; OUT/names.csv says which picture came from which row, OUT/rejects.csv which records were left out and why.
The work is done in a run of its own (OUT.run, which may be removed afterwards). The same line again finishes what was
interrupted; OUT appears at once, when it is complete.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hpcdata.base.command import Options, Parser

LLAVA = "llava-parquet"
FORMS = (LLAVA,)


def parser() -> Parser:
    parser = Parser("convert", __doc__, more=_keys)
    parser.add_argument("form", choices=FORMS, help="llava-parquet: Parquet with pictures -> JSON and files")
    parser.add_argument("src", help="file, folder, glob or brace list")
    parser.add_argument("out", help="folder to make")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="cluster=NAME, and keys as of hpcdata launch")
    parser.add_argument(
        "--name", metavar="NAME.json", help="of the JSON; NAME.jsonl: a record a line (OUT's name, .json)"
    )
    parser.add_argument("--run-dir", metavar="DIR", help="folder of the run (OUT.run)")
    parser.add_config_dir()
    parser.add_json("print what was planned, submitted or made as one JSON object")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return parser().run(arguments, _convert)


def _convert(options: Options) -> int:
    from hpcdata.base import files
    from hpcdata.base.logs import configure
    from hpcdata.cluster import launching
    from hpcdata.config.compose import compose
    from hpcdata.formats.arranging import require_free
    from hpcdata.formats.llava_folder import FORMAT
    from hpcdata.launch import tell

    configure("convert")
    out = Path(options.out).absolute()
    run = Path(options.run_dir).absolute() if options.run_dir else out.with_name(f"{out.name}.run")
    config = compose(
        [
            *("stage=convert", "data.source=parquet", "finish.combine=true"),
            *options.overrides,
            *(f"data.raw_data_dir={options.src}", f"data.token_output_dir={run}", f"convert.out={out}"),
            *([f"convert.json_name={options.name}"] if options.name else []),
        ],
        options.config_dir,
    )
    require_free(out, FORMAT)
    with files.modes_like(run):
        return tell(launching.launch(config), as_json=options.json)


def _keys() -> str:
    from hpcdata.config.help import describe_keys

    return f"keys:\n\n{describe_keys()}"


if __name__ == "__main__":
    sys.exit(main())
