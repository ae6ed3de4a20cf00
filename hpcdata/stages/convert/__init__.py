"""The stage `convert`: records of tables become records as LLaVA's trainers read them, their pictures files.

A shard is one file of JSON lines with its pictures in `files/`, named from the plan. The names that users see follow
from the ids of all records together: `hpcdata.formats.llava_folder` gives them, when the run is combined.

    stage      what a run asks: settings, schema, checks (`STAGE`)
    pictures   the pieces of a record, read, looked at and (some kinds of pictures) re-encoded ahead
    turns      conversations in the form of LLaVA
    prompts    what stands in the place of an empty question
    making     batches of records -> what is written of them
    stored     a committed shard, read back
"""

from hpcdata.stages.convert.stage import STAGE

__all__ = ["STAGE"]
