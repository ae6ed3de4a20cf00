"""Dataset: what combine makes of a run - making it, checking it, opening it.

May use: base, samples, native, config, shards, runs, history; `decoding` alone also encoders, to give texts and
pictures back.

    combining    committed shards -> manifest.json and parts/
    publishing   the new dataset in the place of an older one
    verifying    reads everything back and says whether it is what was promised
    manifest     manifest.json as a value
    partlist     its parts as columns: there may be ten thousand
    joined       columns of many parts in one file each
    baked/       rows of a layout, ready to be copied
    opening      what a path holds: a dataset, one shard, an unfinished run
    maps         read-only memory maps of column files
    parts        the columns of all parts over one address range
    readahead    what the kernel is told about reads to come
    span_table   what a batch of rows consists of
    id_rows      rows of ids, looked up once and copied for many batches
    dataset      TokenDataset: random access to examples
    decoding     an example as texts and pictures again
    showing      what a notebook shows of a dataset
"""
