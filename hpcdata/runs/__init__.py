"""Runs: what a run is - its folder, its plan, its shards and who may work on them.

May use: base, samples, config, shards, sources.

    paths         every name in an output directory
    identities    what a plan remembers of a tokenizer
    stage         what planning, work and proof ask of a stage
    registry      which stages there are
    inputs/       inputs as they were planned, and what a shard takes of them
    plan          plan.json as a value: inputs, shard boundaries, settings, fingerprint
    differences   what a plan and what is asked for now do not have in common
    replacing     a plan with nothing written gives way; tasks that hold it notice
    planning      configuration -> plan, after checking all that can be checked
    witnesses     files that were there when planned: a machine without them lacks a file system
    ownership     whose files it consists of, and what of them is not obeyed
    claims        leases on shards: heartbeat, takeover from the dead
    picking       which shard a process takes next
    reject_limit  how many rejects a run bears
    rejects       the reject ledgers of a whole run, and the parts that retries added
"""
