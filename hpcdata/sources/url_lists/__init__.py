"""Tables that name media by URL: Parquet, CSV, TSV and JSON rows -> one list of JSON lines, in the order of their URLs.

fields     which fields of a row hold URLs
rows       one table file -> rows
listing    a table, or a folder of them -> JSON lines in which rows of one URL stand side by side
"""
