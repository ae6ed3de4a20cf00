"""Rows that were baked: what a layout makes of every sample, padded to one width, beside the samples themselves.

    baked/t2i-0d5b4c8f/rows.memmap     [samples, width] uint16 or int32: the `input_ids` of the layout
                       facts.memmap    [samples, 8] int64, see `FACTS` of `record`
                       runs.memmap     [runs] int32: which columns of a row are padding, image, trained on

A loader with that layout copies them, and looks nothing else up. Nothing but speed depends on them: a dataset without
them is the same dataset, and so is the state of its loaders. May use what `dataset` may.

record    what a manifest says of them; whether they are what was written
adding    writing them into a dataset
maps      reading them
"""
