"""One array task of a run, planned by the first that starts: for sbatch scripts, srun and accelerate launch.

    accelerate launch jobs/precompute_tokens.py +experiments='[webdataset,tokenize,vq16_t2i]' data.raw_data_dir=... ...

The arguments are those of `hpcdata launch`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from hpcdata.base import files
from hpcdata.base.command import Options


def main(arguments: Sequence[str] | None = None) -> int:
    from hpcdata.launch import overrides_parser

    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = overrides_parser("precompute_tokens", __doc__, prog="jobs/{}.py")
    return parser.run(given or ["--help"], _work)


def _work(options: Options) -> int:
    from hpcdata.base.logs import configure
    from hpcdata.cluster.launching import work_as_task
    from hpcdata.config.compose import compose

    configure("precompute")
    config = compose(options.overrides, options.config_dir)
    with files.modes_like(Path(config.data.token_output_dir)):
        return work_as_task(config)


if __name__ == "__main__":
    sys.exit(main())
