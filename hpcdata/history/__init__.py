"""History: what the processes and jobs of a run have noted, and what it adds up to.

May use: base, samples, config, shards, runs.

    events        what an event may hold
    ledger        append-only events of one process
    process       one process, as its ledger tells
    history       what all ledgers say together: seconds useful, lost, overhead, queued
    tasks         a line for each array task
    livelock      shards that never get ahead
    submissions   which scheduler jobs a run has
    queue         what squeue and sacct say of them
    outcome       report.json: how the run ended
    checking      whether all of it is still what was written
"""
