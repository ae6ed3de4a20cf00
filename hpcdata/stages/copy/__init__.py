"""The stage `copy`: raw records become raw records, resharded, and filtered by what can be decoded.

A shard is one tar of WebDataset samples, or one file of JSON lines with its pictures in `files/`, or one Arrow
stream of rows; beside it stand columns that say which sample lies where.

    stage      what a run asks: settings, schema, checks (`STAGE`)
    members    the pieces of a record, read and looked at ahead
    forms      a record as members of a tar, or as a line and its files
    rows       a record as a row of an Arrow stream, and back
    tars       the tar bytes of one sample, by the webdataset library
    making     batches of records -> what is written of them
    stored     a committed shard, read back
"""

from hpcdata.stages.copy.stage import STAGE

__all__ = ["STAGE"]
