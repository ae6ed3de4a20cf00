"""Shards: one shard on disk - its files, checkpoints, commit and rejects.

May use: base, samples. A shard does not know what made it.

    columns     the column files of a table of examples: names, dtypes, shapes
    counts      the account: inputs = written + rejected + duplicate
    tables      examples -> rows of the columns
    rejects     rejects.jsonl: what was not written, and why
    shard       shard.json and progress.json as values; checks of a shard's files
    writing     appending, checkpoints, the commit that publishes
    takeover    continuing from the fullest checkpoint of earlier attempts, also of dead tasks
    recovered   recovered.jsonl: rejects that a retry took back
    compact     many shards -> one contiguous part
"""
