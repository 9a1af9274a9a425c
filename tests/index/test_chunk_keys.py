"""Chunk keys as columns equal those that Python's own str makes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteatlas.errors import Malformed
from byteatlas.index.chunk_keys import ChunkKeys, decimal_fields, label_order, without_padding

numbers = st.one_of(
    st.integers(0, 2**63),
    st.integers(0, 12_000),
    st.sampled_from([10**n - d for n in range(19) for d in (0, 1)]),
)


@given(st.lists(numbers, min_size=1))
def test_numbers_become_the_digits_that_str_gives(values: list[int]) -> None:
    fields = decimal_fields(np.array(values, np.uint64), max(values))

    assert [field.lstrip(b"\0").decode() for field in fields.tolist()] == list(map(str, values))
    assert without_padding(fields) == "".join(map(str, values)).encode()


@given(st.sets(numbers).map(sorted))
def test_labels_sort_as_text(values: list[int]) -> None:
    order = label_order(np.array(values, np.uint64))

    assert [str(values[place]) for place in order] == sorted(map(str, values))


@pytest.mark.parametrize("separator", [".", "/"])
@given(st.data())
def test_keys_are_parsed_to_the_chunks_they_name(separator: str, data: st.DataObject) -> None:
    keys = ChunkKeys("a/é\n1/", separator, "a/é\n1/0")
    grid = tuple(data.draw(st.lists(st.integers(1, 2000), min_size=1, max_size=4)))
    chunks = data.draw(
        st.lists(st.tuples(*(st.integers(0, size - 1) for size in grid)), max_size=20)
    )

    found = keys.parse([keys.key(chunk) for chunk in chunks], grid)

    assert found.tolist() == [int(np.ravel_multi_index(chunk, grid)) for chunk in chunks]


@given(st.text("0123456789./- a\n", max_size=8))
def test_no_other_text_passes_for_a_key(tail: str) -> None:
    keys = ChunkKeys("t/", ".", "t/0")
    parts = tail.split(".")
    is_key = len(parts) == 2 and all(
        part.isdecimal() and part == str(int(part)) and int(part) < 50 for part in parts
    )
    try:
        keys.parse(["t/1.2", f"t/{tail}", "t/3.4"], (50, 50))
    except Malformed:
        assert not is_key
    else:
        assert is_key


def test_a_key_that_is_none_is_named() -> None:
    keys = ChunkKeys("t/", ".", "t/0")

    with pytest.raises(Malformed, match=r"'t/1.x' is not the key of a chunk"):
        keys.parse(["t/1.0", "t/1.x", "t/2.0"], (5, 5))
    with pytest.raises(Malformed, match=r"chunk 't/1.5' lies outside the grid \(5, 5\)"):
        keys.parse(["t/1.0", "t/1.5"], (5, 5))
    with pytest.raises(Malformed, match="'t/1' is not the key of a chunk"):
        keys.parse(["t/0", "t/1"], ())
    assert keys.parse([], (5, 5)).tolist() == []
    assert keys.parse(["t/0"], ()).tolist() == [0]
