"""Examples of the raw path: where they come from, and by which name.

base           Dataset, and DatasetBase, which holds its data in memory
hugging_face   HfDataset: ids of the hub, saved folders, Parquet
sources        SourceDataset: anything that hpcdata reads
index          where its records stand
runs           inputs of runs, and what the stage `copy` has written
measured       MeasuredDataset: records with what the stage `measure` knows of them
columns        how it is stored
examples       records of sources -> examples
registry       names of datasets
deterministic  the same measured       MeasuredDataset: records with what the stage `measure` knows of them
columns        how it is stored
examples with randomness by seed, index and epoch, preprocessed
"""
