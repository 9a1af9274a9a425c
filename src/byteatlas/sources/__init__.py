"""Sources: ranges in, buffers out, every answer checked."""

from byteatlas.sources.byte_source import ByteSource
from byteatlas.sources.cache import CachedReader
from byteatlas.sources.opening import open_source
from byteatlas.sources.remote import Policy
from byteatlas.sources.trace import LogEntry, Trace

__all__ = ["ByteSource", "CachedReader", "LogEntry", "Policy", "Trace", "open_source"]
