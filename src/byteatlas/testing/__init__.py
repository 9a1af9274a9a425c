"""What tests of byteatlas, of scanners and of stores stand on."""

from byteatlas.testing.memory import MemoryReader
from byteatlas.testing.server import Fault, Logged, RangeServer

__all__ = ["Fault", "Logged", "MemoryReader", "RangeServer"]
