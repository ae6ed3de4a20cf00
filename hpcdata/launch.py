"""Launch: plans a run and starts its tasks; the same line again continues it.

    hpcdata launch +experiments=quickstart          the whole way on embedded pictures, about a minute
    hpcdata launch +experiments='[webdataset,tokenize,vq16_t2i]' ...
                                                    image-text pairs; needs data.raw_data_dir, data.token_output_dir,
                                                    text.tokenizer and image.checkpoint
    hpcdata launch +experiments=text ...            documents
    hpcdata launch ... cluster=NAME                 inline (this process), local (processes here), slurm (an array)
    hpcdata launch ... cluster=ourlab               a preset of yours: ourlab.yaml in the folder cluster/ of
                                                    $HPCDATA_CONFIG_PATH or of --config-dir
    hpcdata launch ... estimate=true                says what it will take, from a timed sample, and starts nothing
    hpcdata launch ... --cfg                        prints the configuration and stops
    hpcdata launch --config FILE                    takes it from there, `-` for standard input

Everything that can be checked is checked before anything is started.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpcdata.base import files
from hpcdata.base.command import Options, Parser, path, say

if TYPE_CHECKING:
    from hpcdata.cluster.launching import Estimated, Launched
    from hpcdata.config.schema import RunConfig


def parser() -> Parser:
    parser = overrides_parser("launch", __doc__)
    parser.add_argument("--cfg", action="store_true", help="print the configuration as JSON and stop")
    parser.add_argument(
        "--config", type=path, metavar="FILE", help="a configuration as --cfg printed it, - for standard input"
    )
    parser.add_json("print what was planned, submitted or made as one JSON object")
    return parser


def overrides_parser(name: str, doc: str | None, *, prog: str = "hpcdata {}") -> Parser:
    """The parser of commands whose line is a configuration; its help ends with all keys."""
    parser = Parser(name, doc, prog=prog, more=keys_of_help)
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="+experiments=NAME or '[NAME,NAME]', cluster=NAME, and keys"
    )
    parser.add_config_dir()
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    return parser().run(given or ["--help"], _launch)


def tell(launched: Launched, *, as_json: bool) -> int:
    """Prints what came of a launch; returns the exit code."""
    from hpcdata.cluster import describing

    if launched.local and (text := describing.complaints(launched.local)):
        say(text, file=sys.stderr)
    if as_json:
        print(json.dumps(describing.to_mapping(launched), indent=1))
    elif text := describing.describe(launched):
        say(text)
    return launched.exit_code


def _launch(options: Options) -> int:
    from hpcdata.base.logs import configure
    from hpcdata.cluster import launching
    from hpcdata.config import values

    configure("launch")
    config = _read_config(options)
    if options.cfg:
        print(json.dumps(values.to_mapping(config), indent=1))
        return 0
    if config.estimate:
        return _tell_estimate(launching.estimate(config), as_json=options.json)
    with files.modes_like(Path(config.data.token_output_dir)):
        return tell(launching.launch(config), as_json=options.json)


def _read_config(options: Options) -> RunConfig:
    from hpcdata.base.errors import UserError
    from hpcdata.config.compose import compose, override
    from hpcdata.config.places import expand_paths
    from hpcdata.config.values import from_mapping

    if options.config is None:
        return compose(options.overrides, options.config_dir)
    try:
        with open(0 if options.config == "-" else options.config, closefd=options.config != "-") as file:
            found = json.load(file)
    except ValueError as error:
        raise UserError(f"--config {options.config} is not JSON ({error}): expected what --cfg prints") from None
    return override(expand_paths(from_mapping(found)), options.overrides, options.config_dir)


def _tell_estimate(estimated: Estimated, *, as_json: bool) -> int:
    from hpcdata.cluster import describing

    if as_json:
        print(json.dumps(describing.estimate_to_mapping(estimated), indent=1))
    else:
        say(describing.describe_estimate(estimated))
    return 0


def keys_of_help() -> str:
    from hpcdata.config.help import describe_keys

    return f"keys:\n\n{describe_keys()}"


if __name__ == "__main__":
    sys.exit(main())
