"""The stage `measure`: how large the pictures of a record are, how many ids its turns have, and where it stands.

Nothing is decoded. What is written are columns (`hpcdata.multimodal.datasets.columns`); the records stay where they
are, and `MeasuredDataset` reads them from there.

    stage     what a run asks: settings, schema, checks (`STAGE`)
    making    batches of records -> their measures
"""

from hpcdata.stages.measure.stage import STAGE

__all__ = ["STAGE"]
