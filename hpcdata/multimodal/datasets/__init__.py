"""Examples of the raw path: where they come from, and by which name.

base           Dataset, and DatasetBase, which holds its data in memory
hugging_face   HfDataset: ids of the hub, saved folders, Parquet
registry       names of datasets
deterministic  the same examples with randomness by seed, index and epoch, preprocessed
"""
