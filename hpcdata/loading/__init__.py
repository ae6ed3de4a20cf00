"""Loading: dataset + order -> training batches that resume exactly.

May use: base, samples, native, order, shards, dataset.

    token_streams      datasets as sources: one, or a mixture of several that are encoded alike
    selecting       a part of a dataset, by what its samples are or by a table of scores
    block_prefetch     reading ahead in block order
    widths             how wide batches are, by the longest sample on all ranks
    batches            the batches of steps that give every sample a row
    packed_batches     the same, with several samples a row
    layouts/           how the spans of samples become arrays
    baking             a layout's rows, to be stored
    loader             TokenLoader; its place and state are hpcdata.order.state
    context_parallel   sequences shared out among ranks
    attention          masks and edges that keep the samples of a packed row apart
    account            what each source has contributed
    background         BackgroundLoader: batches made ahead by threads
    trainers           adapters for transformers, Lightning, accelerate and torch's checkpoints
    step_dataset       the steps as a dataset for torch's DataLoader
    replaying          what a run was fed, as digests
"""
