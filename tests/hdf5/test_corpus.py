"""Files of many other projects: every array equal to what h5py and netCDF4 read, or refused."""

import re
from collections import Counter

import h5py
import numpy as np
import pytest

import byteatlas
from byteatlas.errors import ByteatlasError
from byteatlas.read import Reader

pytest.importorskip("hdf5plugin")

pytestmark = pytest.mark.corpus

ONLY_A_DIMENSION = b"This is a netCDF dimension but not a netCDF variable"
LARGEST = 2**27
"""Of arrays of more bytes, only the first and the last rows are compared."""


def kinds_of(dtype):
    """Return what is special about a type or its members."""
    if dtype.subdtype:
        return kinds_of(dtype.base)
    if dtype.names:
        return set().union(*(kinds_of(dtype[name]) for name in dtype.names))
    if h5py.check_ref_dtype(dtype):
        return {"reference"}
    if h5py.check_vlen_dtype(dtype):
        return {"sequence"}
    return {"text"} if h5py.check_string_dtype(dtype) else {dtype.kind}


def filters_of(dataset):
    plist = dataset.id.get_create_plist()
    return [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]


# What must hold of a dataset that was refused for some reason.
REASONS = {
    r"filter (\d+) .* has no codec here": lambda dataset, number: (
        int(number) in filters_of(dataset)
    ),
    r"blosc with compressor 3": lambda dataset: 32001 in filters_of(dataset),
    r"(?:region|HDF5 1.12) references|holds object references": lambda dataset: (
        "reference" in kinds_of(dataset.dtype)
    ),
    r"variable-length sequences": lambda dataset: "sequence" in kinds_of(dataset.dtype),
    r"a null dataspace": lambda dataset: dataset.shape is None,
    r"its values are in an external file": lambda dataset: bool(dataset.external),
    r"its source '": lambda dataset: dataset.is_virtual,
    r"^integers of (\d+) bits, numpy": lambda dataset, bits: (
        dataset.id.get_type().get_precision() == int(bits) > 64
    ),
    r"^floating point of (\d+) bits": lambda dataset, bits: (
        dataset.id.get_type().get_precision() == int(bits)
    ),
    r"a variable-length string that is not UTF-8": lambda dataset: (
        "text" in kinds_of(dataset.dtype)
    ),
}


def is_true(reason, dataset):
    for pattern, holds in REASONS.items():
        if found := re.search(pattern, reason):
            return holds(dataset, *found.groups())
    return False


def files(corpus, *suffixes):
    found = [path for path in sorted((corpus / "hdf5").rglob("*")) if path.is_file()]
    return [path for path in found if not suffixes or path.suffix in suffixes]


def expected_name(path, datasets):
    """Return where a dataset must be in the scan's result."""
    path = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    head, _, name = path.rpartition("/")
    plain = f"{head}/{name.removeprefix('_nc4_non_coord_')}"
    return path if plain in datasets else plain


def is_only_a_dimension(dataset):
    try:
        name = dataset.attrs.get("NAME", b"")
    except (OSError, RuntimeError, TypeError):
        return False
    return isinstance(name, bytes) and name.startswith(ONLY_A_DIMENSION)


def difference_of(array, dataset, reader, difference, wrong_references):
    """Compare one array; all of it unless it is huge."""
    if "reference" in array.notes:
        wrong = wrong_references(reader.read(array), dataset)
        return f"references to {wrong}" if wrong else None
    rows = [...]
    if array.nbytes > LARGEST:
        rows = [slice(0, 1000), slice(dataset.shape[0] - 1000, dataset.shape[0])]
    for part in rows:
        try:
            theirs = dataset[part]
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            raise LookupError from error
        # Where an unlimited dimension is longer, what follows are fill values.
        ours = reader.read(array, part)[(*(slice(0, size) for size in np.shape(theirs)), ...)]
        if why := difference(ours, theirs):
            return why
    return None


def compare(group, file, difference, datasets, wrong_references):
    """Compare a scanned file with h5py; return what is wrong, and how many arrays are equal etc."""
    counts, problems = Counter(), []
    arrays, reasons = dict(group.walk_arrays()), dict(group.report.skipped)
    theirs = {path: one for path, one in datasets(file) if not is_only_a_dimension(one)}
    reader = Reader(group.sources)
    for path, dataset in theirs.items():
        here = expected_name(path, theirs)
        if here in reasons:
            counts["refused"] += 1
            if here in arrays or not is_true(reasons[here], dataset):
                problems.append(f"{here}: refused, because {reasons[here]}")
        elif here not in arrays:
            problems.append(f"{here}: missing")
        else:
            try:
                why = difference_of(arrays.pop(here), dataset, reader, difference, wrong_references)
            except LookupError:
                counts["not readable by h5py"] += 1
                continue
            counts["equal"] += not why
            problems += [f"{here}: {why}"] if why else []
    reader.close()
    return counts, problems + [f"{here}: surplus" for here in arrays]


def test_every_array_is_equal_to_h5py_or_refused_for_a_true_reason(
    corpus, difference, datasets, wrong_references
):
    counts, problems, refused = Counter(), [], set()
    for path in files(corpus):
        try:
            group = byteatlas.scan(str(path))
        except ByteatlasError as error:
            refused.add((path.name.rpartition("__")[2], error.problem))
            continue
        try:
            with h5py.File(path) as file:
                found, wrong = compare(group, file, difference, datasets, wrong_references)
        except OSError:
            counts["files that h5py cannot open"] += 1
            continue
        counts += found + Counter(files=1)
        problems += [f"{path.name}: {problem}" for problem in wrong]
    assert problems == [], "\n".join(problems)
    assert counts["equal"] > 4000
    split = "the file is split or written by a special driver (driver information block)"
    assert refused == {
        ("family_file00000.h5", split),
        ("test_subfiling_stripe_sizes.h5", split),
    }


@pytest.mark.filterwarnings("ignore:WARNING. unsupported:UserWarning")
def test_every_netcdf_file_is_equal_to_netcdf4(corpus, scan, netcdf_differences):
    problems = []
    compared = files(corpus, ".nc", ".nc4")
    for path in compared:
        data = path.read_bytes()
        try:
            found = netcdf_differences(data, scan(data))
        except (ByteatlasError, OSError) as error:
            found = [str(error)]
        problems += [f"{path.name}: {problem}" for problem in found]
    assert problems == [], "\n".join(problems)
    assert len(compared) > 40


def test_no_file_of_known_vulnerabilities_does_harm(corpus, scan, within):
    outcomes = Counter()
    for path in sorted((corpus / "hdf5-cve").rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            with within(20):
                try:
                    scan(data)
                    outcomes["scanned"] += 1
                except ByteatlasError as error:
                    outcomes[type(error).__name__] += 1
    assert outcomes.total() > 0
