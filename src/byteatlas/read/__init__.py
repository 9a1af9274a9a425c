"""Read arrays through an index: a plan in numpy columns, and a pipeline that carries it out."""

from byteatlas.read.cost import Cost, SourceCost
from byteatlas.read.costs import LOCAL, REMOTE, Costs
from byteatlas.read.fetches import FetchPlan, plan_fetches
from byteatlas.read.filled import FilledChunk, FilledChunks
from byteatlas.read.pipeline import Job, execute
from byteatlas.read.placing import decode_chunk
from byteatlas.read.plan import ReadPlan, plan_read
from byteatlas.read.reader import Reader
from byteatlas.read.selection import Pointwise, Selection

__all__ = [
    "LOCAL",
    "REMOTE",
    "Cost",
    "Costs",
    "FetchPlan",
    "FilledChunk",
    "FilledChunks",
    "Job",
    "Pointwise",
    "ReadPlan",
    "Reader",
    "Selection",
    "SourceCost",
    "decode_chunk",
    "execute",
    "plan_fetches",
    "plan_read",
]
