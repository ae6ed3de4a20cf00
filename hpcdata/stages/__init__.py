"""Stages: what a run does to samples; everything else that a run promises is independent of it.

May use: base, samples, config, media, net, sources, shards, runs, encoders, dataset, multimodal, formats. Each is a
module with a value `STAGE`, of the interface in `hpcdata/runs/stage.py`; `stage=NAME` chooses it, and no other room
knows its name.

    tokenize    texts and pictures -> ids and codes
    copy/       raw records -> raw records: resharded, filtered by what can be decoded
    convert/    tables with pictures -> JSON and files, as LLaVA's trainers read them
    fetch/      rows with URLs -> the same with the pictures that were there
    measure/    raw records -> sizes of their pictures, lengths of their texts, and where they stand
"""
