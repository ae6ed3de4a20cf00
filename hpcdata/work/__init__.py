"""Work: what an array task does with the shards that it claims.

May use: base, samples, config, embedded, sources, shards, runs, history, stages, native.

    task           claims shards until none is left
    shardwork      one claimed shard: read, made, checkpointed, committed
    preparing      reading and decoding ahead, in threads
    reading        the records of a shard as they were planned; inputs that changed
    clock          seconds of work, and what they went into
    gpumeter       those in which the GPU was busy
    watchdog       ends a process that hangs in a batch, or takes too much CPU time for a picture
    unreadable     records whose own bytes cannot be read: left to other tasks, in the end rejected
    crashnotes     what is known of both in a shard
    poison         records that kill or hang their process: suspected, tried in a child, rejected
    poisonchild    that child
    remaking       single batches once more, exactly as in the run
    retry          rejects tried again, added as a part of their own
    prove          drawn samples made again and compared
    estimate       what a run will cost, from a timed sample
"""
