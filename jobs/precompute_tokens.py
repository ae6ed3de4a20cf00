"""One array task by hand: `sbatch`, `srun`, `accelerate launch` or plain `python` start any number of these.

    accelerate launch jobs/precompute_tokens.py +experiments='[webdataset,tokenize,vq16_t2i]' data.raw_data_dir=... ...

The first process makes the plan, all of them work on it, each on its own device. The same line again continues.
"""

import logging
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    from hpcdata import launch
    from hpcdata.compose import compose
    from hpcdata.errors import UserError
    from hpcdata.logs import configure

    if not arguments or "-h" in arguments or "--help" in arguments:
        return launch.main(["--help"])
    configure("precompute")
    try:
        config = compose(arguments)
        from hpcdata.planning import prepare
        from hpcdata.slurm.task import run_array_task

        prepare(config)
        for note in launch.notes(config):
            logging.getLogger(__name__).info("%s", note)
        return run_array_task(Path(config.data.token_output_dir).absolute())
    except UserError as error:
        print(f"hpcdata: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
