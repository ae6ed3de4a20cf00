"""Custom: JSON, CSV, TSV and Parquet of any fields, read by a mapping that says which field is what.

May use: base, samples; of the sources their base and pictures.

    mapping       what a mapping says, and whether it can be meant so
    applying      a record of any fields -> a record as all other sources have it
    fitting       whether the first records of a file have the fields of a mapping
    tables        CSV and TSV as JSON lines
"""
