"""Named data sets: what is known of them, fetching them, and checking what is here.

    registry -> entry -> listing (files of the hub) -> fetching (units, leases) -> onefile (bytes) -> record

May use: base, config, runs.

    entry       what is known of a data set
    reading     YAML -> entries
    registry    entries by name, alias and group; patterns of paths
    entries/    one YAML a data set
    settings    where sets lie, the hub, its token, offline
    faults      why something did not come
    web         asking servers for bytes: redirects, tokens, pauses
    record      what is here: path -> size, time, sha256
    onefile     one file, resumed byte by byte and checked
    listing     the files of a set, frozen
    fetching    all files of a set, by many threads and processes
    states      present, partial, absent ..., and what to do
    placing     sets that a person places
    checking    everything read back
"""
