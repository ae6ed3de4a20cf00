"""Formats: other systems' formats, in and out, one a file.

May use: base, samples, config, native, media, order, sources, shards, runs, archives, catalogue, encoders, dataset,
loading.

    lines         lines of `hpcdata export` and `convert` that contradict themselves
    target        what an export is and came from: `hpcdata.json`
    origins       what its records came from: inputs and data sets by their names
    arranging     an export is laid out beside its final name, and appears at once
    llava_folder  converted records as one JSON and a folder of pictures
    arrow         Arrow streams and the files beside them, as Hugging Face datasets read them
    tokens/       datasets of tokens, in the forms that other systems read
    records/      copied records, in the forms that other systems read
    unidisc_options   those of its command
    unidisc       a dataset as the padded TensorDict that UniDisc's loader reads
    unidisc_ids   the ids of `<image>` and padding there
    wids_index    the index of tars that wids reads
    sets/         folders of data sets as others hand them out
"""
