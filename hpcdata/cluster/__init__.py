"""Cluster: where tasks run - this process, processes of this machine, SLURM - and who looks after them.

May use: every room but `formats`.

    limits        what the cluster allows
    preflight     what that and the output folder mean for a run
    launching     plan and start
    resuming      go on from what the run remembers
    describing    what came of that, in words and as plain values
    sbatch        the text of a job, by submitit, and its submission
    runs          one logical array as several, with the finishing job behind
    task          one array task as the scheduler sees it: work, and leave so that it comes back
    local         tasks as processes of this machine
    budget        whether to submit again
    supervise     the finishing job: submit what is missing, or combine and verify, or report
    guard         tries again, hears signals, and ends no finishing job without a report
    faults        why shards are missing
    finish        what follows a finished run
    passing/      runs that a command needs only until what it makes is there
    cancelling    ending all jobs of a run
"""
