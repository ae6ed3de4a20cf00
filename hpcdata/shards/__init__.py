"""Shards: one shard on disk - its files, checkpoints, commit and rejects.

May use: base, samples. A shard does not know what made it.

    schema           what files it has: columns of tables, streams that only grow, files of their own
    columns          the columns of shards of tokens: names, dtypes, shapes
    counts           the account: inputs = written + rejected + duplicate
    made             what a stage makes of a batch, as far as writing needs to know
    tables           examples -> rows of the columns
    raw_texts/       the columns of raw texts beside ids, where a run keeps them
    reject_ledger    rejects.jsonl: what was not written, and why
    one_by_one       a batch whose records are made one by one, each or its reject
    shard            shard.json and progress.json as values; checks of a shard's files
    appending        a file that only grows, with its sha256; whole files, written behind the caller
    writing          appending batches, checkpoints, commit
    sealing          complete files -> a sealed folder -> its published name
    takeover         continuing from the fullest checkpoint of earlier attempts, also of dead tasks
    recovered        recovered.jsonl: rejects that a retry took back
    stored           examples read back, and compared
    compact          many shards -> one contiguous part
"""
