"""zfp of every shape and mode: what h5py reads, and nothing where the stream ends early."""

import h5py
import numpy as np
import pytest

from byteatlas.codecs import decode, zfp
from byteatlas.errors import Malformed
from byteatlas_scanners.hdf5.filters import Filter, encoding_of

hdf5plugin = pytest.importorskip("hdf5plugin")

MODES = {
    "reversible": {"reversible": True},
    "accuracy": {"accuracy": 0.01},
    "no accuracy": {"accuracy": 1e30},  # every block is of zeros, whatever its bits are
    "precision": {"precision": 9},
    "one bit": {"precision": 1},
    "rate": {"rate": 9},
}
SHAPES = [
    (5,),
    (700,),
    (64, 40),
    (1, 500),
    (9, 10, 21),
    (3, 40, 30),
    (1, 1, 300),
    (2, 3, 4, 5),
]


@pytest.fixture(params=SHAPES, ids=str)
def chunks(request):
    """Encodings, chunks and values, by mode."""
    shape, found = request.param, []
    size = int(np.prod(shape))
    draw = np.random.default_rng(size)
    with h5py.File("made.h5", "w", driver="core", backing_store=False) as file:
        for name, options in MODES.items():
            for dtype in ("<f4", "<f8", "<i4"):
                for values in (np.cumsum(draw.normal(size=size)) * 100, np.zeros(size)):
                    dataset = file.create_dataset(
                        f"{name} {dtype} {values.any()}",
                        data=values.reshape(shape).astype(dtype),
                        chunks=shape,
                        **hdf5plugin.Zfp(**options),
                    )
                    mask, raw = dataset.id.read_direct_chunk((0,) * len(shape))
                    if mask:  # the filter did not want it
                        continue
                    number, _, client, _ = dataset.id.get_create_plist().get_filter(0)
                    whole = dataset[...].tobytes()
                    filters = (Filter(number, True, "", client),)
                    found.append((encoding_of(filters, chunk_nbytes=len(whole)), raw, whole))
    return found


def test_zfp_decodes_to_what_h5py_reads_and_cut_short_to_that_or_nothing(chunks, monkeypatch):
    ends = []
    original = zfp._decode_with_more

    def spy(*arguments):
        out, has_ended = original(*arguments)
        ends.append(has_ended)
        return out, has_ended

    monkeypatch.setattr(zfp, "_decode_with_more", spy)
    for encoding, raw, whole in chunks:
        assert bytes(decode(raw, encoding, size=len(whole))) == whole
    assert any(ends)
    for encoding, raw, whole in chunks:
        for keep in {max(len(raw) - cut, 0) for cut in (1, 2, 8, 9, len(raw) // 2)}:
            try:
                found = bytes(decode(raw[:keep], encoding, size=len(whole)))
            except Malformed:
                found = None
            monkeypatch.setattr(zfp, "_decode_with_more", lambda *a: (original(*a)[0], False))
            try:
                expected = bytes(decode(raw[:keep], encoding, size=len(whole)))
            except Malformed:
                expected = None
            monkeypatch.setattr(zfp, "_decode_with_more", spy)
            assert found == expected
