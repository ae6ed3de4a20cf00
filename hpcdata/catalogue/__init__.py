"""Named data sets: what is known of them, fetching them, and checking what is here.

    registry -> entry -> listing (files of the hub) -> fetching -> sharing (units, leases) -> transfer -> record

May use: base, net, runs, archives.

    entry       what is known of a data set
    reading     YAML -> entries
    registry    entries by name, alias and group; patterns of paths
    entries/    one YAML a data set
    settings    where sets lie, the hub, its token, offline
    faults      what is wanted, why it did not come, what came in its place
    web         asking servers for bytes: tokens, pauses, what goes wrong
    record      what is here: path -> size, time, sha256
    transfer/   the bytes of one file
    listing     the files of a set, frozen
    accounts    how a set is fetched, and what came of it, in words too
    sharing     the work of one process: units, their claims, threads
    fetching    all files of a set, by all processes
    unpacking/  archives of a set -> the files in them
    states      present, partial, absent ..., and what to do
    placing     sets that a person places
    checking    everything read back
    commanding  what `hpcdata download` does with its arguments, and its words
"""
