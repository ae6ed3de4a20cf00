"""Config: every key, its type and help, and how a command line becomes values.

May use: base, embedded.

    schema    every key that exists: its type, default, meaning, and whether it changes what is written
    values    plain nested values <-> the typed configuration
    places    paths as people type them -> local paths
    numbers   numbers against their limits and each other
    scheduler what of it gets into scripts of the scheduler, checked
    presets   folders of YAML of a site or a user
    array     SLURM array notation, and one array as several
    help      the list of keys that `--help` prints
    compose   command line -> configuration: the one place of Hydra
"""
