"""Expand kerchunk's templates and generators, by a small evaluator that cannot do harm.

Reference specification version 1: ``{{ }}`` in URLs and generators holds an expression. Known are
whole numbers, text, names, ``+ - * / // %``, templates with arguments (``{{f(c='x')}}``) and the
filter ``format`` (``{{'%03d'|format(i)}}``). All else is refused; nothing is executed.

A generator is expanded in columns: a name of its dimensions stands for an array over the whole
product, and so does every expression of it.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import repeat
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed, Unsupported
from byteatlas.limits import Limits

__all__ = ["Templates"]

Value: TypeAlias = int | float | str | NDArray[np.object_]
"""A value, or one for each reference of a generator: an object array of shape (n,)."""

_EXPRESSION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_NUMBER_FORMAT = re.compile(r"[^%]*%0?\d{0,2}[dsx][^%]*")
_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}

# JSON values are Any throughout: their shape is data, checked where it is read.


class Templates:
    """The templates of an index.

    Parameters
    ----------
    templates
        Name to text, from the section ``templates``.
    limits
        How long texts may become, how deep templates nest, and how many references ``gen`` yields.
    """

    def __init__(self, templates: Any = None, limits: Limits | None = None) -> None:
        self._limits = Limits() if limits is None else limits
        templates = templates or {}
        if not isinstance(templates, dict):
            raise Malformed(f"'templates' is {templates!r:.80}, expected an object")
        for name, text in templates.items():
            if not isinstance(text, str) or not name.isidentifier():
                raise Malformed(f"template {name!r:.80} is {text!r:.80}, expected a name and text")
        self._templates: dict[str, str] = templates

    def expand(self, text: str) -> str:
        """Return a URL with its expressions evaluated.

        Raises
        ------
        Malformed
            An expression is wrong.
        LimitExceeded
            The URL becomes too long, or templates nest too deep.
        Unsupported
            An expression needs more than is known here.
        """
        if not self._templates or "{{" not in text:
            return text
        return str(self._render(text, {}, 0))

    def generate(self, generators: Any) -> dict[str, list[Any]]:
        """Return the references that the section ``gen`` describes, by key.

        Raises
        ------
        Malformed
            A generator is wrong, or two references have one key.
        LimitExceeded
            There are more references than there may be; none of them is made. Or a text becomes
            too long.
        Unsupported
            An expression needs more than is known here.
        """
        if not isinstance(generators, list):
            raise Malformed(f"'gen' is {generators!r:.80}, expected a list")
        plans = [_dimensions(generator) for generator in generators]
        total = sum(math.prod(map(len, plan.values())) for plan in plans)
        self._limits.check("generated", total, "the number of references that 'gen' describes")
        refs: dict[str, list[Any]] = {}
        for generator, plan in zip(generators, plans, strict=True):
            refs |= self._references(generator, plan)
        if len(refs) != total:
            raise Malformed(f"'gen' describes {total} references, but only {len(refs)} keys")
        return refs

    def _references(
        self, generator: Mapping[str, Any], dimensions: dict[str, list[Any] | range]
    ) -> dict[str, list[Any]]:
        shape = tuple(map(len, dimensions.values()))
        count = math.prod(shape)
        names: dict[str, Value] = {}
        for (name, values), places in zip(
            dimensions.items(), np.indices(shape, np.int32).reshape(len(shape), -1), strict=True
        ):
            names[name] = _column(values, len(values))[places]
        keys = self._texts(generator["key"], names, count)
        columns = [self._texts(generator["url"], names, count)]
        if ("offset" in generator) != ("length" in generator):
            raise Malformed("a generator has an offset or a length, expected both or neither")
        for part in ("offset", "length") if "offset" in generator else ():
            text = self._texts(str(generator[part]), names, count)
            try:
                columns.append(list(map(int, text)))
            except ValueError as error:
                raise Malformed(f"the {part} of a generator is no whole number: {error}") from error
        return dict(zip(keys, map(list, zip(*columns, strict=True)), strict=True))

    def _texts(self, text: str, names: Mapping[str, Value], count: int) -> list[Any]:
        """Return one text per reference of a generator."""
        value = self._render(text, names, 0)
        return value.tolist() if isinstance(value, np.ndarray) else [value] * count

    def _render(self, text: str, names: Mapping[str, Value], depth: int) -> Value:
        self._limits.check("url", len(text), f"the template text {text[:80]!r}")
        self._limits.check("template_depth", depth, f"the template text {text[:80]!r}, nested,")
        parts: list[Value] = []
        for position, part in enumerate(_EXPRESSION.split(text)):
            if position % 2:
                try:
                    parts.append(_as_text(self._value(_parse(part), names, depth)))
                except RecursionError as error:
                    raise Malformed(f"the expression {part[:80]!r} nests too deep") from error
            elif re.search(r"\{\{|\}\}|\{%|\{#", part) or (depth == 0 and re.search("[{}]", part)):
                raise Unsupported(
                    f"the template text {text[:80]!r} has other braces than {{{{ }}}}"
                )
            else:
                parts.append(part)
        return _joined(parts, self._limits)

    def _value(self, node: ast.expr, names: Mapping[str, Value], depth: int) -> Value:
        """Evaluate an expression; every kind of it that is not listed here is refused."""
        match node:
            case ast.Constant(value=int() | str() as value) if not isinstance(value, bool):
                return value
            case ast.Name(id=name) if name in names:
                return names[name]
            case ast.Name(id=name) if name in self._templates:
                return self._render(self._templates[name], {}, depth + 1)
            case ast.Name(id=name):
                raise Malformed(f"{name!r:.80} is neither a template nor a dimension")
            case ast.Call(func=ast.Name(id=name), args=[]) if name in self._templates:
                arguments = {
                    keyword.arg: self._value(keyword.value, names, depth)
                    for keyword in node.keywords
                    if keyword.arg is not None
                }
                if len(arguments) == len(node.keywords):
                    return self._render(self._templates[name], arguments, depth + 1)
            case ast.BinOp(
                left=left,
                op=ast.BitOr(),
                right=ast.Call(func=ast.Name(id="format"), args=[right], keywords=[]),
            ):
                return _formatted(self._value(left, names, depth), self._value(right, names, depth))
            case ast.BinOp(left=ast.Constant(value=str() as pattern), op=ast.Mod(), right=right):
                return _formatted(pattern, self._value(right, names, depth))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _calculated(
                    _OPERATORS[type(op)],
                    self._value(left, names, depth),
                    self._value(right, names, depth),
                )
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return _calculated(operator.sub, 0, self._value(operand, names, depth))
        raise Unsupported(f"the template expression {ast.unparse(node)!r:.80} is not known")


def _dimensions(generator: Any) -> dict[str, list[Any] | range]:
    """Return the values of each dimension of a generator."""
    known = {"key", "url", "offset", "length", "dimensions"}
    if not isinstance(generator, dict) or not {"key", "url", "dimensions"} <= set(generator):
        raise Malformed(f"{generator!r:.80} is no generator: it has no key, url or dimensions")
    if set(generator) - known:
        raise Unsupported(f"a generator has members that are not known: {sorted(generator)!r:.80}")
    texts = (generator["key"], generator["url"])
    if not isinstance(generator["dimensions"], dict) or not all(isinstance(t, str) for t in texts):
        raise Malformed(f"{generator!r:.80} is no generator")
    found: dict[str, list[Any] | range] = {}
    for name, values in generator["dimensions"].items():
        if isinstance(values, dict) and set(values) <= {"start", "stop", "step"}:
            found[name] = _range(name, **values)
        elif isinstance(values, list) and set(map(type, values)) <= {int, str}:
            found[name] = values
        else:
            raise Malformed(f"dimension {name!r:.80} of a generator is {values!r:.80}")
    if len(found) > 32:
        raise Unsupported(f"a generator has {len(found)} dimensions, the limit is 32")
    return found


def _range(name: str, start: Any = 0, stop: Any = None, step: Any = 1) -> range:
    if not all(type(n) is int and abs(n) < 2**62 for n in (start, stop, step)) or not step:
        raise Malformed(f"dimension {name!r:.80} of a generator is {start!r}, {stop!r}, {step!r}")
    return range(start, stop, step)


def _parse(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Malformed(f"{text[:80]!r} is no expression that templates may hold") from error


def _calculated(operation: Callable[[Any, Any], Any], left: Value, right: Value) -> Value:
    if not all(set(map(type, _items(side))) <= {int, float} for side in (left, right)):
        raise Unsupported("a template calculates with text")
    try:
        result: Value = operation(left, right)
    except ZeroDivisionError as error:
        raise Malformed("a template divides by zero") from error
    if any(abs(number) >= 2**63 for number in _items(result)):
        raise Unsupported("a template calculates with numbers beyond 64 bits")
    return result


def _formatted(pattern: Value, value: Value) -> Value:
    """Apply the filter ``format``: one number or text, in a field of at most 99 characters."""
    if not isinstance(pattern, str) or not _NUMBER_FORMAT.fullmatch(pattern):
        raise Unsupported(f"the format {pattern!r:.80} is not known")
    try:
        return _each(pattern.__mod__, value)
    except (TypeError, ValueError) as error:
        raise Malformed(f"a value does not fit the format {pattern!r}") from error


def _as_text(value: Value) -> Value:
    return _each(str, value)


def _each(function: Callable[[Any], Any], value: Value) -> Value:
    if not isinstance(value, np.ndarray):
        result: Value = function(value)
        return result
    return _column(map(function, value.tolist()), value.size)


def _joined(parts: list[Value], limits: Limits) -> Value:
    """Return texts joined, one by one where they are columns."""
    length = sum(max(map(len, _items(part)), default=0) for part in parts)
    limits.check("url", length, "the expansion of a template")
    columns = [part for part in parts if isinstance(part, np.ndarray)]
    if not columns:
        return "".join(map(str, parts))
    texts = (part.tolist() if isinstance(part, np.ndarray) else repeat(part) for part in parts)
    return _column(map("".join, zip(*texts, strict=False)), columns[0].size)


def _column(values: Iterable[Any], count: int) -> NDArray[np.object_]:
    column = np.empty(count, object)
    column[:] = list(values)
    return column


def _items(value: Value) -> list[Any]:
    return value.tolist() if isinstance(value, np.ndarray) else [value]
