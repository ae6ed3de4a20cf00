"""Run: one run on disk - its plan, its processes and what they have noted.

May use: base, samples, config, shards, sources.

    paths         every name in an output directory
    identities    what a plan remembers of a tokenizer
    plan          plan.json as a value: inputs, shard boundaries, settings, fingerprint
    planning      configuration -> plan, after checking all that can be checked
    claims        leases on shards: heartbeat, takeover from the dead
    picking       which shard a process takes next
    ledger        append-only events of one process
    history       what all ledgers say together: seconds useful, lost, overhead, queued
    tasks         a line for each array task
    livelock      shards that never get ahead
    rejects       the reject ledgers of a whole run, and the parts that retries added
    submissions   which scheduler jobs a run has
    queue         what squeue and sacct say of them
    outcome       report.json: how the run ended
"""
