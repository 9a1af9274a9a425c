"""What our own reader refuses, another library may read: in a process of its own, with limits.

A scanner names such libraries in `Scanner.engines`. `engines` decides what is tried, `process`
starts a child and talks with it, `child` is what runs there, and `building` makes arrays of what it
says.
"""

from byteatlas.fallback.engines import AUTO, NATIVE, scan_with

__all__ = ["AUTO", "NATIVE", "scan_with"]
