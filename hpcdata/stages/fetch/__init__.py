"""The stage `fetch`: rows with URLs become records with the pictures that were there.

stage      what a run asks: settings, checks (`STAGE`)
fetching   a record with URLs -> its JSON, its text and its pictures, many records at once in one thread
urls       URL -> picture: each is asked for once by a task, and again where its host was busy
hosts      hosts that are not asked for a while
outcomes   what an answer, or none, says of a URL
network    whether it is this machine that reaches nobody
making     a record and its pictures -> what is written: as the stage `copy` does
"""

from hpcdata.stages.fetch.stage import STAGE

__all__ = ["STAGE"]
