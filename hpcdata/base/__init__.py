"""Base: what every room stands on, and knows nothing of data.

May use: nothing of ours.

    errors      UserError: one clear line for a person
    files       durable writes, exclusive creation, the publishing rename
    disk/       large files, written past the page cache
    reads       what is read of others' files: whole, or an error that names the file
    sealed      JSON files that show any change of their bytes
    digest      sha256 of files, content digest of examples
    foreign/    YAML that others wrote -> values, in bounded time and memory
    typed       checks that values read from files have their types
    units       numbers and foreign text as people read them, lists and paths as they type them
    logs        the form of log lines
    signals     the stop flag that SIGTERM, SIGUSR1 and SIGUSR2 set
    memory      what cgroups, SLURM and the machine leave a process, as its own limit
    forked      a computation over many files in several processes
    version     which code and which libraries these are
    command     what all commands share: options, errors, exit codes, the lines that people type
    completion  scripts that complete those lines in a shell
    notebook    pieces of HTML that notebooks show
"""
