"""Lengths + order -> batches of raw examples that resume exactly.

May use what its room uses.

    mixture       datasets with weights: IterableDatasetMixture, rates of groups
    lengths       what each example takes of the budgets of a row, without decoding
    steps         which examples each row of each step consists of
    crew          the threads of a loader, and their patience with the machine
    fetching      examples made ahead, in bounded memory
    buffers       memory of batches, used again
    collation     preprocessed examples -> one batch of tensors: MMCollator
    masks         which token may attend to which
    opening       what a loader is given -> sources in order, preprocessor, packing, collator
    loader        MultimodalLoader
    accounting    what each source has contributed, and what was rejected
"""
