"""Loading: dataset + order -> training batches that resume exactly.

May use: base, samples, native, order, shards, dataset.

    token_streams      datasets as sources: one, or a mixture of several that are encoded alike
    block_prefetch     reading ahead in block order
    batches            the batches of steps that give every sample a row
    packed_batches     the same, with several samples a row
    layouts/           how the spans of samples become arrays
    loader             TokenLoader; its place and state are hpcdata.order.state
    account            what each source has contributed
    waits           how long a training waited for its batches
    background         BackgroundLoader: batches made ahead by threads
    step_dataset       the steps as a dataset for torch's DataLoader
    replaying          what a run was fed, as digests
"""
