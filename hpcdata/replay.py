"""Replay: what a training run was fed at given steps, as digests.

    hpcdata replay OUT --state loader.json --steps 100:110 --world-size 8

`global` is the digest of the whole batch and the same for every world size; `rank` lines are those of the shares. A
training script gets the same numbers for what it was fed from `hpcdata.batch_digest([batch])`.

The state is what `TokenLoader.state_dict()` returned, as JSON or as `torch.save` wrote it; it says the settings, also
packing and order, so that only layout options must be repeated. A mixture is given as a JSON file in place of the
dataset, with the arguments that the run gave: {"sources": [{"dataset": "/pairs", "weight": 3}, ...], "policy": ...}.
A selection is its rows, `np.save("good.npy", loader.dataset.rows)`: {"dataset": "/pairs", "rows": "good.npy"}.

Raw examples (MultimodalLoader) are given as a recipe, a file with datasets, preprocessor and loader: see
hpcdata.multimodal.recipe. Their pictures are decoded again.

`--account` says what each source had contributed where the loader stood: samples, tokens, padding, and what was left
out. (How long a training waited for batches only its own process knows: `loader.account()`.)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hpcdata.base.command import Options, Parser, path, say


def parser() -> Parser:
    parser = Parser("replay", __doc__)
    parser.add_argument("dataset", type=path, help="a dataset, a combined run, a mixture as a .json file, or a recipe")
    parser.add_argument("--steps", help="A:B of the epoch; by default from the state's step to the end")
    parser.add_argument("--epoch", type=int, help="by default the state's, else 0")
    parser.add_argument("--world-size", type=int, default=1, help="also print the digests of this many shares")
    parser.add_argument(
        "--state", type=path, help="file with what TokenLoader.state_dict() returned, JSON or torch.save"
    )
    parser.add_argument("--global-batch-size", type=int, help="without a state")
    parser.add_argument("--seed", type=int, default=0, help="without a state")
    parser.add_argument("--no-shuffle", action="store_true", help="without a state")
    parser.add_argument("--layout", help="by default the state's, else t2i")
    parser.add_argument("--layout-options", default="{}", help='options that the run gave it: {"block_size": 128}')
    parser.add_argument(
        "--weights-ledger", type=path, metavar="FILE", help="with the changes of weights, where the run gave one"
    )
    parser.add_argument("--account", action="store_true", help="print the account of all sources in place of digests")
    parser.add_json("print one JSON object a step, or of the account")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return parser().run(arguments, _replay)


def _replay(options: Options) -> int:
    import dataclasses
    import json

    from hpcdata.base.errors import UserError
    from hpcdata.loading.replaying import account_of, make_loaders, read_state, replay, steps_between
    from hpcdata.multimodal.recipe import is_recipe, make_raw_loaders

    try:
        state = read_state(options.state) if options.state else None
        loaders = make_raw_loaders(options, state) if is_recipe(options.dataset) else make_loaders(options, state)
        if options.account:
            _tell_account(account_of(loaders[0]), as_json=options.json)
            return 0
        epoch = loaders[0].epoch if options.epoch is None else options.epoch
        for found in replay(loaders, epoch, steps_between(options.steps, loaders[0], epoch)):
            if options.json:
                print(json.dumps(dataclasses.asdict(found)))
                continue
            say(f"epoch {found.epoch} step {found.step} first_index {found.first_index} global {found.whole}")
            for rank, share in enumerate(found.ranks if options.world_size > 1 else ()):
                say(f"epoch {found.epoch} step {found.step} rank {rank} of {options.world_size} {share}")
    except TypeError as error:  # of a layout that does not know an option
        raise UserError(str(error)) from None
    return 0


def _tell_account(account: dict[str, dict[str, float]], *, as_json: bool) -> None:
    import json

    if as_json:
        print(json.dumps(account, indent=1))
        return
    for source, values in account.items():
        say(f"{source}  " + "  ".join(f"{name} {value:,.6g}" for name, value in values.items()))


if __name__ == "__main__":
    sys.exit(main())
