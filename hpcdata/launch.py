"""Launch: plans a run and starts its tasks; the same line again continues it.

    hpcdata launch +experiments=quickstart          the whole way on embedded pictures, about a minute
    hpcdata launch +experiments='[webdataset,tokenize,vq16_t2i]' ...
                                                    image-text pairs; needs data.raw_data_dir, data.token_output_dir,
                                                    text.tokenizer and image.checkpoint
    hpcdata launch +experiments=text ...            documents
    hpcdata launch ... cluster=NAME                 inline (this process), local (processes here), slurm (an array)
    hpcdata launch ... estimate=true                says what it will take, from a timed sample, and starts nothing
    hpcdata launch ... --cfg                        prints the configuration and stops

Everything that can be checked is checked before anything is started.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hpcdata.base.command import run, wants_help

USAGE = "usage: hpcdata launch [+experiments=NAME or '[NAME,NAME]'] [cluster=NAME] [key=value ...] [--cfg]"


def main(arguments: Sequence[str] | None = None) -> int:
    overrides = list(sys.argv[1:] if arguments is None else arguments)
    if not overrides or wants_help(overrides):
        print_help()
        return 0
    return run(lambda: _launch(overrides))


def print_help(usage: str = USAGE) -> None:
    from hpcdata.config.help import describe_keys

    print(usage, __doc__, f"keys:\n\n{describe_keys()}", sep="\n\n")


def _launch(overrides: Sequence[str]) -> int:
    import json

    from hpcdata.base.logs import configure
    from hpcdata.cluster.launching import launch
    from hpcdata.config import values
    from hpcdata.config.compose import compose

    configure("launch")
    config = compose([argument for argument in overrides if argument != "--cfg"])
    if "--cfg" in overrides:
        print(json.dumps(values.to_mapping(config), indent=1))
        return 0
    return launch(config)


if __name__ == "__main__":
    sys.exit(main())
