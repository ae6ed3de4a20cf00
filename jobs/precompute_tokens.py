"""One array task of a run, planned by the first that starts: for sbatch scripts, srun and accelerate launch.

    accelerate launch jobs/precompute_tokens.py +experiments='[webdataset,tokenize,vq16_t2i]' data.raw_data_dir=... ...

The arguments are those of `hpcdata launch`.
"""

import sys
from collections.abc import Sequence

from hpcdata.base.command import run, wants_help


def main(arguments: Sequence[str] | None = None) -> int:
    from hpcdata.base.logs import configure
    from hpcdata.cluster.launching import work_as_task
    from hpcdata.config.compose import compose
    from hpcdata.launch import print_help

    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or wants_help(arguments):
        print_help("usage: jobs/precompute_tokens.py [+experiments=NAME] [key=value ...]")
        return 0
    configure("precompute")
    return run(lambda: work_as_task(compose(arguments)))


if __name__ == "__main__":
    sys.exit(main())
