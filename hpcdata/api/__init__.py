"""API: what the commands do, for Python programs and notebooks: `hpcdata.run(...)` and `hpcdata.Run(path)`.

May use: base, config, runs, history, shards, dataset, work, report, cluster.

Nothing is printed. The program that calls keeps its signal handlers, logging and torch settings: whatever plans,
encodes or submits is one of our commands in a process of its own; what only reads or combines runs in the caller.

    running      run(), Run
    processes    a command as a process: its answer, and its message when it fails
    showing      what a notebook shows of a run
"""
