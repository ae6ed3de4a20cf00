"""Raw texts: the texts of samples beside their ids, where a run keeps them (`text.keep_raw`).

columns   which columns they are; texts -> rows, rows -> texts
part      the texts of one part of a dataset, by rows
"""
