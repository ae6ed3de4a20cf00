"""Examples of the raw path: where they come from, and by which name.

base           Dataset, and DatasetBase, which holds its data in memory
hugging_face   HfDataset: ids of the hub, saved folders, Parquet
sources        SourceDataset: anything that hpcdata reads
index          where its records stand
runs           inputs of runs, and what the stage `copy` has written
measured       MeasuredDataset: records with what the stage `measure` knows of them
columns        how it is stored
examples       records of sources -> examples
tables         TableDataset: rows of Parquet, read where they lie
questions      QuestionsDataset: files of questions, and a folder of pictures
fetched        FetchedDataset: rows of lists of addresses, with the pictures that `fetch` has brought
named          sets of the catalogue that are here
registry       names of datasets
verifying      named sets looked at: counted, and decoded
deterministic  the same examples with randomness by seed, index and epoch, preprocessed
"""
