"""A selection as words on the command line: ``0, :, 10:20`` or ``time=0,lat=10:20``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import EllipsisType
from typing import TypeAlias

import click

from byteatlas.model import VirtualArray
from byteatlas.read.selection import resolve

__all__ = ["parse_selection"]

Index: TypeAlias = int | slice | list[int]

_BETWEEN = re.compile(r",(?![^\[\]]*\])")  # not within a list
_NUMBER = r"[+-]?[0-9]{1,18}"
_SINGLE = re.compile(_NUMBER)
_SLICE = re.compile(rf"({_NUMBER})?\s*:\s*({_NUMBER})?\s*(?::\s*({_NUMBER})?)?")
_LIST = re.compile(rf"\[\s*(?:{_NUMBER}(?:\s*,\s*{_NUMBER})*)?\s*,?\s*\]")
_NAMED = re.compile(r"([^=\[\]]+)=(.*)", re.DOTALL)
_SPELLING = "a position, a range such as 10:20 or ::2, or a list such as [1,4,7]"


def parse_selection(
    words: Sequence[str], array: VirtualArray, variable: str
) -> tuple[Index | EllipsisType, ...]:
    """Return the selection that words on the command line mean.

    Parameters
    ----------
    words
        One for each axis, or several joined by commas: numpy's integers, slices, lists of
        integers and ``...`` in the order of the axes; or each behind the name of its dimension
        and ``=``. No words select everything.
    array
        What is selected from.
    variable
        Its name, for error messages.

    Raises
    ------
    click.UsageError
        The words mean nothing, or do not fit the array; the message says what would.
    """
    items = [item.strip() for word in words for item in _BETWEEN.split(_without_end(word))]
    items = [item.strip() for item in _BETWEEN.split(",".join(items))]  # lists cut by blanks
    if items == [""]:
        return ()
    if any(item.count("[") != item.count("]") for item in items):
        raise click.UsageError(f"{','.join(items)!r}: a list is opened or closed without the other")
    pairs = [_NAMED.fullmatch(item) for item in items]
    selection: tuple[Index | EllipsisType, ...]
    named = [(found[1].strip(), found[2].strip()) for found in pairs if found]
    if named and len(named) < len(items):
        raise click.UsageError("select all axes by name (time=0), or all by their order, not both")
    if named:
        selection = _by_name(named, array, variable)
    else:
        selection = tuple(... if item == "..." else _index(item) for item in items)
    try:
        resolve(selection, array.shape)
    except IndexError as error:
        raise click.UsageError(f"{variable} has the axes {_axes(array)}: {error}") from None
    return selection


def _without_end(word: str) -> str:
    """Take off the comma that a word ends with where blanks stand behind commas."""
    stripped = word.strip()
    return stripped.removesuffix(",") if stripped != "," else stripped


def _by_name(named: list[tuple[str, str]], array: VirtualArray, variable: str) -> tuple[Index, ...]:
    selection: list[Index] = [slice(None)] * len(array.shape)
    seen: set[str] = set()
    for name, text in named:
        count = array.dimensions.count(name)
        if not count:
            names = ", ".join(array.dimensions) or "none that has a name"
            raise click.UsageError(f"{variable} has no dimension {name!r}; there is {names}")
        if count > 1:
            raise click.UsageError(f"{variable} has {name!r} {count} times; select by order")
        if name in seen:
            raise click.UsageError(f"{name!r} is selected twice")
        seen.add(name)
        selection[array.dimensions.index(name)] = _index(text)
    return tuple(selection)


def _index(text: str) -> Index:
    if _SINGLE.fullmatch(text):
        return int(text)
    if found := _SLICE.fullmatch(text):
        start, stop, step = (None if part is None else int(part) for part in found.groups())
        if step == 0:
            raise click.UsageError(f"{text!r}: the step of a range cannot be 0")
        return slice(start, stop, step)
    if _LIST.fullmatch(text):
        return [int(number) for number in re.findall(_NUMBER, text)]
    raise click.UsageError(f"{text!r} selects nothing: expected {_SPELLING}")


def _axes(array: VirtualArray) -> str:
    names = array.dimensions or ("",) * len(array.shape)
    pairs = zip(names, array.shape, strict=True)
    return "(" + ", ".join(f"{name} {size}".strip() for name, size in pairs) + ")"
