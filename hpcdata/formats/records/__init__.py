"""Copied records (`stage=copy`) in the forms that other systems read: their tars, JSON lines and pictures, laid out.

options       how they are laid out, and what of it each format takes
copied        a dataset of copied records, opened: its parts, and where each sample lies
tar_members   what the samples of a tar consist of
tar_keys      names of samples in tars: which another reader would not take, and tars with other names
splits        which tars are for training, which for validation
sample_types  what Energon makes of a sample, told from what the samples hold
energon       the files of Megatron Energon beside tars
llava         a record as LLaVA's trainer reads it
tar_targets   webdataset, energon: their files
json_targets  jsonl, llava
row_targets   hf
laying_out    one of them, laid out
"""
