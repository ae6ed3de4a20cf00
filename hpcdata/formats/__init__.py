"""Formats: other systems' formats, in and out, one a file.

May use: base, samples, native, sources, encoders, dataset, loading.

    unidisc       a dataset as the padded TensorDict that UniDisc's loader reads
    unidisc_ids   the ids of `<image>` and padding there
    wids_index    the index of tars that wids reads
"""
