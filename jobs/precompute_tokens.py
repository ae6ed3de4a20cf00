"""One array task by hand: `sbatch`, `srun`, `accelerate launch` or plain `python` start any number of these.

    accelerate launch jobs/precompute_tokens.py +experiments='[webdataset,tokenize,vq16_t2i]' data.raw_data_dir=... ...

The first process makes the plan, all of them work on it, each on its own device. The same line again continues.
"""

import sys

from hpcdata.launch import run_task_by_hand

if __name__ == "__main__":
    sys.exit(run_task_by_hand(sys.argv[1:]))
