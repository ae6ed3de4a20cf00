"""Trains the embedded image tokenizer; the same line again continues after a kill. Data: hpcdata/embedded/README.md.

    python jobs/train_image_tokenizer.py output_dir=OUT drawings=[openclipart.txt] photos=['/photos/*.jpg'] [threads=2]

`accelerate launch` starts it on several GPUs. Under SLURM a preempted job goes back to the queue. The result is
OUT/tokenizer.safetensors; every key is in `hpcdata/encoders/training/recipe.py`.
"""

import sys

from hpcdata.base import logs
from hpcdata.base.command import run
from hpcdata.base.signals import StopFlag
from hpcdata.cluster.task import leave
from hpcdata.config.compose import compose_job
from hpcdata.encoders.training.recipe import Recipe


def main(arguments: list[str]) -> int:
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    logs.configure()
    recipe = compose_job("train_image_tokenizer", Recipe, arguments)
    from hpcdata.encoders.training.train import train

    with StopFlag() as stop:
        return 0 if train(recipe, stop=stop) else leave(stop)


if __name__ == "__main__":
    sys.exit(run(lambda: main(sys.argv[1:])))
