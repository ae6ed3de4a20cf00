"""Convert: other systems' formats, one a file.

May use: base, samples, native, sources, dataset, loading.

    unidisc       a dataset as the padded TensorDict that UniDisc's loader reads
    wids_index    the index of tars that wids reads
"""
