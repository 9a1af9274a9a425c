"""The objects of a file: headers, links, attributes and datasets, all that are reachable at once.

Each parser here leaves its result in an `Object` and returns the parsers that follow from it
(`byteatlas.steps.chase`), so what costs rounds is the longest chain of structures in the file.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from byteatlas.errors import ByteatlasError, Malformed
from byteatlas.model import Skipped
from byteatlas.steps import from_head
from byteatlas_scanners.hdf5.attribute import (
    RawAttribute,
    attribute_value,
    heap_ids,
    read_dense_attributes,
    referred_addresses,
    split_attribute,
)
from byteatlas_scanners.hdf5.conventions import is_struct_metadata
from byteatlas_scanners.hdf5.dataset import DatasetHeader, read_array
from byteatlas_scanners.hdf5.dataspace import Dataspace, parse_dataspace
from byteatlas_scanners.hdf5.datatype import Datatype, parse_datatype
from byteatlas_scanners.hdf5.elsewhere import Elsewhere, read_elsewhere
from byteatlas_scanners.hdf5.failures import FAILURES, located, reason_of
from byteatlas_scanners.hdf5.fill_value import FillValue, parse_fill_value, parse_old_fill_value
from byteatlas_scanners.hdf5.filters import parse_filter_pipeline
from byteatlas_scanners.hdf5.global_heap import GlobalHeap, parse_heap_ids
from byteatlas_scanners.hdf5.layout import parse_layout
from byteatlas_scanners.hdf5.links import Link, parse_link, read_dense_links
from byteatlas_scanners.hdf5.object_header import (
    Message,
    parse_body,
    parse_structure,
    read_header,
)
from byteatlas_scanners.hdf5.shared import SharedMessages
from byteatlas_scanners.hdf5.symbol_table import read_symbol_table

if TYPE_CHECKING:
    from byteatlas.model import Attribute, VirtualArray
    from byteatlas.scanners import ScanOptions
    from byteatlas.steps import Followers, Steps
    from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = ["BOOKKEEPING", "IGNORED", "MAX_DEPTH", "Object", "Objects"]

DATASPACE, LINK_INFO, DATATYPE, OLD_FILL_VALUE, FILL_VALUE, LINK = 1, 2, 3, 4, 5, 6
EXTERNAL_FILES, LAYOUT, GROUP_INFO, FILTERS, ATTRIBUTE, SYMBOL_TABLE = 7, 8, 10, 11, 12, 17
ATTRIBUTE_INFO = 21

MAX_DEPTH = 256
"""Groups nested deeper are not read."""
MAX_OBJECTS = 1_000_000

# Bookkeeping of the netCDF-4 library and of the dimension scales, not attributes of the data.
BOOKKEEPING = frozenset(
    {
        "CLASS",
        "DIMENSION_LIST",
        "NAME",
        "_Netcdf4Coordinates",
        "_Netcdf4Dimid",
    }
)
IGNORED = frozenset({"REFERENCE_LIST", "_NCProperties", "_nc3_strict"})


@dataclass(slots=True)
class Object:
    """One object header's content, filled in while the parsers run."""

    address: int
    path: str
    """The first path that led here; "" for the root group."""
    is_group: bool = False
    links: dict[str, Link] = field(default_factory=dict)
    attrs: dict[str, Attribute] = field(default_factory=dict)
    bookkeeping: dict[str, Any] = field(default_factory=dict)
    """Attributes of BOOKKEEPING that tell of dimensions (Any: each its own form)."""
    dataspace: Dataspace | None = None
    """Of a dataset, once it is parsed."""
    dataset: DatasetHeader | None = None
    """Of a dataset, once all of its header is parsed."""
    array: VirtualArray | None = None
    elsewhere: Elsewhere | None = None
    """Where the values of a dataset are that are not in it; `array` follows from them."""
    offset: int = 0
    """Where the header starts in the window."""
    reason: str | None = None
    """Why there is no array, or not all links."""
    failure: ByteatlasError | None = None
    """Why the header itself cannot be read."""
    skipped: list[Skipped] = field(default_factory=list)
    """Attributes left out."""
    references: dict[str, list[int]] = field(default_factory=dict)
    """Attributes that refer to other objects, by their addresses."""

    def leave_out(self, attribute: str, error: Exception) -> None:
        """Report an attribute that cannot be read; "*" stands for all, "?" for a nameless one."""
        reason = reason_of(error, self.offset)
        self.skipped.append(Skipped(f"{self.path}@{attribute}", reason))


def _drop_repeated(item: Object, links: list[Link]) -> None:
    """Follow none of the links of one name: which of them a search finds, only the tree tells."""
    counts = Counter(link.name for link in links)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    for name in repeated:
        del item.links[name]
    more = f" and {len(repeated) - 1} others" if repeated[1:] else ""
    error = Malformed(f"several links of the name {repeated[0]!r}{more}, of which none is followed")
    item.reason = item.reason or reason_of(error, item.offset)


class Objects:
    """All objects of a file by address, and what their parsers have in common."""

    def __init__(self, file: Hdf5File, options: ScanOptions) -> None:
        self.file = file
        self.options = options
        self.by_address: dict[int, Object] = {}
        self.heap = GlobalHeap(file)
        self.shared = SharedMessages(file)
        self._datatypes: dict[bytes, Datatype] = {}
        self._dataspaces: dict[bytes, Dataspace] = {}
        self._seen: set[int] = set()
        self.root = Object(-1, "")

    def at_once(self, parser: Followers) -> Followers:
        """Let a parser go on while the bytes at hand have what it asks for."""
        return from_head(parser, self.file.head)

    def visit(self, address: int, path: str) -> Followers:
        """Read the header at an address; return the parsers of what it says."""
        start = self.file.base + address
        item = self.by_address[address] = Object(address, path, offset=start)
        self._seen.add(address)
        if not path:
            self.root = item
        try:
            header = yield from parse_structure(
                read_header(self.file, address), "object header", start
            )
            kinds = {message.type for message in header}
            if kinds & {LINK_INFO, SYMBOL_TABLE, LINK, GROUP_INFO}:
                item.is_group = True
                follow = self._read_links(item, header)
            elif LAYOUT in kinds:
                follow = self._read_dataset(item, header)
            else:
                return ()  # a committed datatype: those who use it read it
        except FAILURES as error:
            item.failure = located(error, start)
            item.reason = str(item.failure)
            return ()
        return (self.at_once(self._read_attributes(item, header)), self.at_once(follow))

    def _read_links(self, item: Object, header: list[Message]) -> Followers:
        """Read a group's links; return visits of the objects not seen yet."""
        file = self.file
        links: list[Link] = []
        try:
            for message in header:
                if message.type == LINK:
                    links.append(parse_body(lambda body: parse_link(file, body), message, "link"))
                elif message.type == LINK_INFO:
                    dense = read_dense_links(file, message.body)
                    links += yield from parse_structure(dense, "links", message.address)
                elif message.type == SYMBOL_TABLE:
                    table = read_symbol_table(file, message.body)
                    links += yield from parse_structure(table, "symbol table", message.address)
        except FAILURES as error:
            item.reason = reason_of(error, item.offset)
        item.links = {link.name: link for link in links}
        if len(item.links) < len(links):
            _drop_repeated(item, links)
        if item.path.count("/") > MAX_DEPTH:
            return ()
        followers = []
        seen = self._seen
        for link in item.links.values():
            address = link.address
            if address is None or address in seen:
                continue
            seen.add(address)
            if len(seen) > MAX_OBJECTS:
                item.reason = f"more than {MAX_OBJECTS} objects, at byte {item.offset}"
                break
            followers.append(self.at_once(self.visit(address, f"{item.path}/{link.name}")))
        return followers

    def _read_dataset(self, item: Object, header: list[Message]) -> Followers:
        """Read what a dataset's header says of its values, and where they are."""
        try:
            bodies = {message.type: message for message in header}
            yield from self.shared.load(
                (message.type, bytes(message.body))
                for message in header
                if message.is_shared and message.type != ATTRIBUTE
            )
            dataset = item.dataset = self._dataset_header(item, bodies)
            if dataset.is_elsewhere and self.options.opens_others:
                item.elsewhere = yield from read_elsewhere(self.file, dataset, self.heap)
            elif self.options.wants(item.path) or is_struct_metadata(item.path):
                item.array = yield from read_array(self.file, dataset, self.heap, self.options)
            else:
                item.reason = f"it is excluded as {item.path}"
        except FAILURES as error:
            item.reason = reason_of(error, item.offset)
        return ()

    def _dataset_header(self, item: Object, bodies: dict[int, Message]) -> DatasetHeader:
        file = self.file

        def parse(
            kind: int, parser: Any, what: str, default: Any = None
        ) -> Any:  # Any: see parse_body
            if kind not in bodies:
                return default
            message = bodies[kind]
            if message.is_shared:
                message = message._replace(body=self.shared.body(kind, bytes(message.body)))
            return parse_body(parser, message, what)

        dataspace = parse(DATASPACE, self._dataspace, "dataspace")
        if dataspace is None:
            raise Malformed("a dataset without a dataspace")
        item.dataspace = dataspace
        fill = parse(FILL_VALUE, parse_fill_value, "fill value")
        if fill is None:
            fill = parse(OLD_FILL_VALUE, parse_old_fill_value, "fill value", FillValue())
        datatype = parse(DATATYPE, self._datatype, "datatype")
        if datatype is None:
            raise Malformed("a dataset without a datatype")
        filters = parse(FILTERS, parse_filter_pipeline, "filter pipeline", ())
        layout = parse(
            LAYOUT,
            lambda body: parse_layout(file, body, is_filtered=bool(filters)),
            "data layout",
        )
        return DatasetHeader(
            dataspace=dataspace,
            datatype=datatype,
            layout=layout,
            filters=filters,
            fill=fill,
            external_files=(
                bytes(bodies[EXTERNAL_FILES].body) if EXTERNAL_FILES in bodies else None
            ),
        )

    def _datatype(self, body: memoryview) -> Datatype:
        key = bytes(body)
        found = self._datatypes.get(key)
        if found is None:
            found = self._datatypes[key] = parse_datatype(self.file, memoryview(key))
        return found

    def _read_attributes(self, item: Object, header: list[Message]) -> Followers:
        """Read all attributes of an object; one that fails is skipped, with its reason."""
        messages = [
            (message.flags, message.body) for message in header if message.type == ATTRIBUTE
        ]
        for message in header:
            if message.type == ATTRIBUTE_INFO:
                try:
                    dense = read_dense_attributes(self.file, message.body)
                    messages += yield from parse_structure(dense, "attributes", message.address)
                except FAILURES as error:
                    item.leave_out("*", error)
        pointers = [(ATTRIBUTE, bytes(body)) for flags, body in messages if flags & 2]
        if pointers:
            yield from self._load_shared(item, pointers)
        raws: list[RawAttribute] = []
        for flags, body in messages:
            try:
                whole = self.shared.body(ATTRIBUTE, bytes(body)) if flags & 2 else body
                raw = split_attribute(whole)
                if raw.name not in IGNORED:
                    raws.append(raw)
            except FAILURES as error:
                item.leave_out("?", error)
        pointers = [(DATATYPE, bytes(raw.datatype)) for raw in raws if raw.is_datatype_shared]
        pointers += [(DATASPACE, bytes(raw.dataspace)) for raw in raws if raw.is_dataspace_shared]
        if pointers:
            yield from self._load_shared(item, pointers)
        parsed, collections = self._typed(item, raws)
        if collections:
            try:
                yield from self.heap.load(collections)
            except FAILURES as error:
                item.leave_out("*", error)
        for raw, datatype, dataspace in parsed:
            try:
                self._keep(item, raw, datatype, dataspace)
            except FAILURES as error:
                item.leave_out(raw.name, error)
        return ()

    def _typed(
        self, item: Object, raws: list[RawAttribute]
    ) -> tuple[list[tuple[RawAttribute, Datatype, Dataspace]], list[int]]:
        """Return attributes with their types, and the heap collections that hold their values."""
        parsed: list[tuple[RawAttribute, Datatype, Dataspace]] = []
        collections: list[int] = []
        for raw in raws:
            try:
                datatype, dataspace = self._attribute_type(raw)
                parsed.append((raw, datatype, dataspace))
                if not datatype.is_in_heap or (datatype.refusal and raw.name != "DIMENSION_LIST"):
                    continue
                if dataspace.elements * datatype.size <= len(raw.data):
                    ids = heap_ids(self.file, datatype, dataspace, raw.data)
                    collections += [address for count, address, _ in ids if count]
            except FAILURES as error:
                item.leave_out(raw.name, error)
        return parsed, collections

    def _keep(
        self, item: Object, raw: RawAttribute, datatype: Datatype, dataspace: Dataspace
    ) -> None:
        """Keep an attribute's value, or what leads to it."""
        if raw.name in BOOKKEEPING:
            self._keep_bookkeeping(item, raw, datatype, dataspace)
            return
        if datatype.is_reference:
            addresses = referred_addresses(self.file, datatype, dataspace, raw.data)
            item.references[raw.name] = addresses
            item.attrs[raw.name] = ""  # its place among the others
            return
        value = attribute_value(self.file, datatype, dataspace, raw.data, self.heap)
        if raw.name == "_FillValue" and datatype.is_fixed_string:
            # A value of characters, no text: bytes, as netCDF4 gives it.
            value = np.bytes_(raw.data[: dataspace.elements * datatype.size])
        item.attrs[raw.name] = value

    def _load_shared(self, item: Object, pointers: list[tuple[int, bytes]]) -> Steps[None]:
        try:
            yield from self.shared.load(pointers)
        except FAILURES:
            yield from self._load_shared_singly(item, pointers)

    def _load_shared_singly(self, item: Object, pointers: list[tuple[int, bytes]]) -> Steps[None]:
        for pointer in pointers:
            try:
                yield from self.shared.load([pointer])
            except FAILURES as error:
                item.leave_out("?", error)

    def _attribute_type(self, raw: RawAttribute) -> tuple[Datatype, Dataspace]:
        datatype, dataspace = raw.datatype, raw.dataspace
        if raw.is_datatype_shared:
            datatype = self.shared.body(DATATYPE, bytes(datatype))
        if raw.is_dataspace_shared:
            dataspace = self.shared.body(DATASPACE, bytes(dataspace))
        return self._datatype(datatype), self._dataspace(dataspace)

    def _dataspace(self, body: memoryview) -> Dataspace:
        key = bytes(body)
        found = self._dataspaces.get(key)
        if found is None:
            found = self._dataspaces[key] = parse_dataspace(self.file, memoryview(key))
        return found

    def _keep_bookkeeping(
        self, item: Object, raw: RawAttribute, datatype: Datatype, dataspace: Dataspace
    ) -> None:
        """Keep what names dimensions: scales per axis, and netCDF-4's numbers of dimensions."""
        if raw.name in ("CLASS", "NAME"):
            value = attribute_value(self.file, datatype, dataspace, raw.data, self.heap)
            item.bookkeeping[raw.name] = value if isinstance(value, str) else ""
        elif raw.name in ("_Netcdf4Dimid", "_Netcdf4Coordinates"):
            value = attribute_value(self.file, datatype, dataspace, raw.data, self.heap)
            item.bookkeeping[raw.name] = np.ravel(value).tolist()
        elif raw.name == "DIMENSION_LIST" and datatype.sequence and datatype.sequence.is_reference:
            width = datatype.sequence.size
            ids = parse_heap_ids(self.file, raw.data[: dataspace.elements * datatype.size])
            item.bookkeeping[raw.name] = [
                [self.file.offset_at(value, at) for at in range(0, len(value) - width + 1, width)]
                for value in self.heap.values(ids, width)
            ]
