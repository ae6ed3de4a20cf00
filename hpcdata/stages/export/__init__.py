"""The stage `export`: rows of a dataset of tokens become what another system's loader reads.

Its records are the rows of a combined dataset, in its order or a drawn one. A shard is a part of the target: a stream,
or files of their own, or its share of one file, by `hpcdata.formats.tokens`. Combine arranges them.

    stage      what a run asks: settings, schema, checks, arranging (`STAGE`)
    making     batches of rows -> what is written of them
    stored     a committed shard, read back
"""

from hpcdata.stages.export.stage import STAGE

__all__ = ["STAGE"]
