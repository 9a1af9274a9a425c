"""Read arrays through an index: a plan in numpy columns, and a pipeline that carries it out."""

from byteatlas.read.pipeline import decode_chunk, execute
from byteatlas.read.plan import LOCAL, REMOTE, Costs, ReadPlan, plan_read
from byteatlas.read.reader import Reader
from byteatlas.read.selection import Selection

__all__ = [
    "LOCAL",
    "REMOTE",
    "Costs",
    "ReadPlan",
    "Reader",
    "Selection",
    "decode_chunk",
    "execute",
    "plan_read",
]
