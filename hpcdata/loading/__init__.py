"""Loading: dataset + order -> training batches that resume exactly.

May use: base, samples, native, order, shards, dataset.

    streams            the canonical order of samples: one dataset, or a mixture
    block_prefetch     reading ahead in block order
    batches            the steps of an epoch
    packed_batches     the same, with several samples a row
    layouts/           how the spans of samples become arrays
    loader             TokenLoader
    account            what each source has contributed
    background         BackgroundLoader: batches made ahead by threads
    step_dataset       the steps as a dataset for torch's DataLoader
    replaying          what a run was fed, as digests
"""
