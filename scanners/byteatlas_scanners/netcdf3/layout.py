"""Where the values of the variables lie, by what the header says.

After "Notes on Computing File Offsets" of the specification. A variable without the record
dimension lies in one piece. Those with it are interleaved: each record holds a slab of every one,
padded to a multiple of 4 bytes; only a single record variable goes without the padding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from byteatlas.errors import ByteatlasError, Malformed, Unsupported
from byteatlas.model import Dimension, ScanReport, Skipped, VirtualArray, VirtualGroup
from byteatlas.scanners import ScanOptions
from byteatlas_scanners.netcdf3.header import Header, Var
from byteatlas_scanners.splitting import contiguous_manifest, split_rows

__all__ = ["virtual_group"]

_MAX_RANK = 32
"""Number of dimensions that any numpy can give an array."""


@dataclass(frozen=True, slots=True)
class _Placed:
    """A variable and its slabs: one in each record, or just one without the record dimension."""

    var: Var
    shape: tuple[int, ...]
    slab: int
    """Bytes of a slab, without padding."""
    slabs: int
    """Number of slabs."""
    stride: int
    """Distance from one slab to the next, in bytes."""

    @property
    def begin(self) -> int:
        """Offset of the first slab."""
        return self.var.begin

    @property
    def end(self) -> int:
        """Offset of the first byte behind the last slab."""
        return self.begin + (self.slabs - 1) * self.stride + self.slab if self.slabs else self.begin


def virtual_group(header: Header, size: int, options: ScanOptions) -> VirtualGroup:
    """Return the group that a header describes, in a source of `size` bytes.

    Raises
    ------
    Malformed
        Two variables share bytes, or one begins inside the header.
    """
    numrecs, variables = _place(header, size)
    _check_disjoint(header, variables)
    arrays: dict[str, VirtualArray] = {}
    skipped: list[Skipped] = []
    for placed in variables:
        name = placed.var.name
        if not options.wants(f"/{name}"):
            continue
        try:
            arrays[name] = _virtual_array(header, placed, size, options.max_chunk)
        except ByteatlasError as error:
            skipped.append(Skipped(f"/{name}", str(error.at(offset=placed.var.start))))
    return VirtualGroup(
        attrs=header.gatt_list,
        dimensions={
            name: Dimension(length or numrecs, is_unlimited=length == 0)
            for name, length in header.dim_list
        },
        arrays=arrays,
        report=ScanReport(scanner="netcdf3", skipped=tuple(skipped)),
    )


def _place(header: Header, size: int) -> tuple[int, list[_Placed]]:
    """Return the number of records, and where the slabs of each variable lie."""
    lengths = [dim.dim_length for dim in header.dim_list]
    shapes = [tuple(lengths[dimid] for dimid in var.dimids) for var in header.var_list]
    slabs = [
        var.dtype.itemsize * math.prod(length or 1 for length in shape)
        for var, shape in zip(header.var_list, shapes, strict=True)
    ]
    listed = list(zip(header.var_list, shapes, slabs, strict=True))
    first_record = [(var.begin, slab) for var, shape, slab in listed if shape[:1] == (0,)]
    if len(first_record) == 1:
        recsize = first_record[0][1]
    else:
        recsize = sum(slab + -slab % 4 for _, slab in first_record)
    numrecs = header.numrecs
    if numrecs is None:
        end = max((begin + slab for begin, slab in first_record), default=size + 1)
        numrecs = 1 + (size - end) // recsize if end <= size else 0
    return numrecs, [
        _Placed(var, (numrecs, *shape[1:]), slab, slabs=numrecs, stride=recsize)
        if shape[:1] == (0,)
        else _Placed(var, shape, slab, slabs=1, stride=slab)
        for var, shape, slab in listed
    ]


def _check_disjoint(header: Header, variables: list[_Placed]) -> None:
    """Refuse a header that gives the same bytes twice: one of the two would read wrong."""
    spans = sorted(_spans(header, variables))
    for (_, end, one), (begin, _, other) in pairwise(spans):
        if begin < end:
            raise Malformed(f"{other} begins inside {one}", offset=begin)


def _spans(header: Header, variables: list[_Placed]) -> Iterator[tuple[int, int, str]]:
    """Yield begin, end and name of each piece; the records after the first count as one."""
    yield 0, header.length, "the header"
    for placed in variables:
        if placed.slabs:
            yield placed.begin, placed.begin + placed.slab, f"variable {placed.var.name!r}"
    repeated = [placed for placed in variables if placed.slabs > 1]
    if repeated:
        begin = min(placed.begin + placed.stride for placed in repeated)
        yield begin, max(placed.end for placed in repeated), "the second record"


def _virtual_array(header: Header, placed: _Placed, size: int, max_chunk: int) -> VirtualArray:
    var, shape, itemsize = placed.var, placed.shape, placed.var.dtype.itemsize
    _check_name(var.name)
    if placed.slabs and placed.end > size:
        raise Malformed(
            f"its data goes on, but the source ends at byte {size}",
            offset=placed.begin,
            length=placed.end - placed.begin,
        )
    if len(shape) > _MAX_RANK:
        raise Unsupported(f"it has {len(shape)} dimensions, more than {_MAX_RANK}")
    room_after = size - placed.end
    interleaved = placed.slabs > 0 and placed.stride != placed.slab
    if interleaved:
        inner = split_rows(shape[1:], itemsize, max_chunk, room_after=room_after)
        chunk_shape = (1, *inner)
    else:
        chunk_shape = split_rows(shape, itemsize, max_chunk, room_after=room_after)
    return VirtualArray(
        shape=shape,
        dtype=var.dtype,
        chunk_shape=chunk_shape,
        manifest=contiguous_manifest(
            shape,
            chunk_shape,
            itemsize,
            placed.begin,
            row_stride=placed.stride if interleaved else None,
        ),
        dimensions=tuple(header.dim_list[dimid].name for dimid in var.dimids),
        attrs=var.vatt_list,
    )


def _check_name(name: str) -> None:
    """Refuse a name that cannot be a step of a path."""
    if not name or name.startswith(".") or any(c == "/" or c < " " or c == "\x7f" for c in name):
        raise Unsupported(f"its name {name!r} cannot be part of a path")
