"""Trains the embedded image tokenizer; the same line again continues after a kill. Data: hpcdata/embedded/README.md.

    python jobs/train_image_tokenizer.py output_dir=OUT drawings=[openclipart.txt] photos=['/photos/*.jpg'] [threads=2]

`accelerate launch` starts it on several GPUs. Under SLURM a preempted job goes back to the queue. The result is
OUT/tokenizer.safetensors; every key is in `hpcdata/encoders/recipe.py`.
"""

import sys

from hpcdata import logs
from hpcdata.compose import compose_job
from hpcdata.encoders.recipe import Recipe
from hpcdata.errors import UserError
from hpcdata.slurm.signals import StopFlag
from hpcdata.slurm.task import leave


def main(arguments: list[str]) -> int:
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    logs.configure()
    try:
        recipe = compose_job("train_image_tokenizer", Recipe, arguments)
        from hpcdata.encoders.training import train

        with StopFlag() as stop:
            return 0 if train(recipe, stop=stop) else leave(stop)
    except (UserError, OSError) as error:
        print(f"hpcdata: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
