"""Convert: makes files of tables: pictures and JSON, as trainers read them.

    hpcdata convert llava-parquet SRC OUT           Parquet of LLaVA-OneVision and its like: OUT/OUT.json, OUT/image/
    hpcdata convert llava-parquet SRC OUT --name data.jsonl convert.prompt=recap data.placeholders=fix
    hpcdata convert llava-parquet SRC OUT cluster=slurm cluster.array=0-31 cluster.partition=preempt
    hpcdata convert relink SRC OUT                  SRC/SET/SET.json, whose paths start with OUT/SET/image/ then
    hpcdata convert mix 2-1 /llava/mix.yaml         a mix of the files of a stage (1, 1.5, 2-1, 2-2) that lie in /llava
    hpcdata convert sets SRC OUT --mapping JSON_Mapping.csv       a folder of sets: Parquet is converted, JSON relinked

SRC is a Parquet file, a folder, a glob or a brace list (in quotes). JPEG, PNG and WebP are written as they are, under
their ids; OUT/names.csv says which picture came from which row, OUT/rejects.csv which records were left out and why.
The work is done in a run of its own (OUT.run, which may be removed afterwards). The same line again finishes what was
interrupted; OUT appears at once, when it is complete.

relink and sets: SRC holds a folder for each set. Pictures of JSON sets lie below OUT/SET/image/, where sets unpacks
image*.tar.gz (tar, zip) of their folders, and each is looked for: OUT/missing-pictures.csv has all that are missing.
A JSON that lacks some is not written; the exit code is 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hpcdata.base.command import DONE, FAILED, Options, Parser, path, say
from hpcdata.formats.lines import require_options_of, require_sense
from hpcdata.launch import keys_of_help, tell

LLAVA = "llava-parquet"
RELINK, SETS, MIX = "relink", "sets", "mix"
FORMS = (LLAVA, RELINK, SETS, MIX)


def parser() -> Parser:
    parser = Parser("convert", __doc__, more=keys_of_help)
    parser.add_argument("form", choices=FORMS, help="what is made, see above")
    parser.add_argument("src", type=path, help="file, folder, glob or brace list")
    parser.add_argument("out", type=path, help="folder to make")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="cluster=NAME, keys of launch")
    parser.add_argument(
        "--name", metavar="NAME.json", help="of the JSON; NAME.jsonl: a record a line (OUT's name, .json)"
    )
    parser.add_argument("--run-dir", type=path, metavar="DIR", help="folder of the run (OUT.run)")
    parser.add_argument("--mapping", type=path, metavar="CSV", help="relink, sets: folder_name,json_file (SET.json)")
    parser.add_argument("--root-name", metavar="NAME", help="relink, sets: what paths start with (OUT's name)")
    parser.add_argument("--set", metavar="SET", action="append", default=[], help="relink, sets: these alone")
    parser.add_argument(
        "--write-incomplete", action="store_true", help="also JSON that lacks pictures, a mix that lacks files"
    )
    parser.add_config_dir()
    parser.add_json("print what was planned, submitted or made as one JSON object")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return parser().run(arguments, _convert)


def main_of_sets(script: str, folder: str, doc: str | None) -> int:
    """`jobs/ov_*.py`: sets by a script's name and words. folder: the name of the folder of sets."""
    from hpcdata.formats.sets.scripts import words_of

    return main([SETS, *words_of(script, folder, doc)])


def _convert(options: Options) -> int:
    require_options_of(options.form, vars(options))
    if options.form == MIX:
        return _mix(options)
    if options.form in (RELINK, SETS):
        return _sets(options)
    from hpcdata.base import files
    from hpcdata.base.logs import configure
    from hpcdata.cluster import launching
    from hpcdata.cluster.passing.through import run_beside
    from hpcdata.config.compose import compose
    from hpcdata.formats.arranging import require_free
    from hpcdata.formats.llava_folder import FORMAT

    configure("convert")
    require_sense(options.out, options.overrides, run=options.run_dir)
    out = Path(options.out).absolute()
    run = Path(options.run_dir).absolute() if options.run_dir else run_beside(out)
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


def _mix(options: Options) -> int:
    from hpcdata.formats.sets.staging import write_mix

    done = write_mix(options.src, Path(options.out).absolute(), writes_incomplete=options.write_incomplete)
    for item in done.not_published:
        say(f"not published  {item.file}")
    for item in done.missing:
        say(f"missing        {item.set_name}: {item.file}")
    say(f"{len(done.found)} files{'' if done.is_written else ', and no mix is written'}: {options.out}")
    return FAILED if done.missing else DONE


def _sets(options: Options) -> int:
    from hpcdata.formats.sets.running import SetOptions, run

    done = run(
        SetOptions(
            source=Path(options.src),
            target=Path(options.out).absolute(),
            mapping=Path(options.mapping) if options.mapping else None,
            root_name=options.root_name,
            only=options.set,
            writes_incomplete=options.write_incomplete,
        ),
        convert=(lambda line: main([LLAVA, *line, *options.overrides])) if options.form == SETS else None,
        say=say,
    )
    return DONE if done else FAILED


if __name__ == "__main__":
    sys.exit(main())
