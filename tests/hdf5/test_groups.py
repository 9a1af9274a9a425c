"""Groups of both styles, and links of all kinds."""

from itertools import pairwise

import h5py
import numpy as np
import pytest

from byteatlas.errors import Malformed

STYLES = pytest.mark.parametrize("libver", [None, "latest"], ids=["old style", "new style"])


def leads_nowhere(*paths):
    return dict.fromkeys(paths, "which leads nowhere")


def leads_back(*paths):
    return dict.fromkeys(paths, "a link back to a group that it is in")


@pytest.mark.parametrize("count", [0, 1, 8, 9, 300, 1500])
@STYLES
def test_groups_of_any_number_of_members_are_read(make, check, libver, count):
    def write(file):
        group = file.create_group("group")
        for number in range(count):
            group[f"{number:05d}"] = number

    group = check(make(write, libver=libver))
    assert list(group["group"].arrays) == [f"{number:05d}" for number in range(count)]


@STYLES
def test_members_come_by_name(make, scan, libver):
    names = ["b", "z", "\u00e9", "a", "Z", "10", "9"]

    def write(file):
        for parent, repeat in (("few", 1), ("many", 5)):
            for name in names * repeat:
                file.require_group(f"{parent}/{name * repeat}")
        for number in range(20):
            file[f"many/{97 * number % 100}"] = number

    data = make(write, libver=libver)
    group = scan(data)
    for parent in ("few", "many"):
        for found in (group[parent].groups, group[parent].arrays):
            assert list(found) == sorted(found)


def test_members_come_by_creation_where_that_is_tracked(make, scan):
    names = [f"{97 * number % 100}" for number in range(30)]

    def write(file):
        for parent, count in (("few", 5), ("many", 30)):
            group = file.create_group(parent, track_order=True)
            for name in names[:count]:
                group[name] = 1

    group = scan(make(write))
    assert list(group["few"].arrays) == names[:5]
    assert list(group["many"].arrays) == names


@STYLES
def test_names_are_unicode_and_may_be_odd(make, check, libver):
    names = ["with space", "caf\u00e9", "\u4e2d\u6587", "a.b", "#%?", "..x", "x" * 300, 'q"\\']

    def write(file):
        for name in names:
            file[name] = [1, 2]
            file.attrs[name] = 1

    group = check(make(write, libver=libver))
    assert set(group.arrays) == set(group.attrs) == set(names)


@STYLES
def test_names_that_are_no_unicode_are_spelled_so_that_an_index_can_hold_them(make, scan, libver):
    def write(file):
        space = h5py.h5s.create_simple((2,))
        h5py.h5d.create(file.id, b"caf\xe9", h5py.h5t.STD_I32LE, space)
        attribute = h5py.h5a.create(file.id, b"r\xe9", h5py.h5t.STD_I32LE, space)
        attribute.write(np.arange(2, dtype="<i4"))

    group = scan(make(write, libver=libver))
    assert list(group.arrays) == [r"caf\xe9"]
    assert list(group.attrs) == [r"r\xe9"]


@pytest.mark.parametrize("name", [".zarray", ".zgroup", ".zattrs", ".zmetadata", "zarr.json", ".."])
def test_names_that_mean_something_else_in_a_store_are_left_out(make, check, name):
    def write(file):
        file[f"group/{name}"] = 1
        file["group/x"] = 2

    check(make(write), {f"/group/{name}": "cannot be a name in a Zarr store"})


@STYLES
def test_soft_links_lead_to_datasets_and_groups(make, check, libver):
    def write(file):
        file["g/x"] = np.arange(3)
        for name, target in {
            "absolute": "/g/x",
            "relative": "g/x",
            "chained": "absolute",
            "chained twice": "/chained",
            **{f"chain{number}": f"chain{number + 1}" for number in range(10)},
            "chain10": "g/x",
            "with dots": "/./g/./x/",
            "group": "/g",
            "through group": "group/x",
            "g/sibling": "x",
            "g/chained": "sibling",
            "g/far": "/through group",
        }.items():
            file[name] = h5py.SoftLink(target)

    group = check(make(write, libver=libver))
    assert len(group.arrays) == 17
    assert len(group["g"].arrays) == len(group["group"].arrays) == 4


@STYLES
def test_soft_links_that_lead_nowhere_are_left_out(make, check, libver):
    def write(file):
        file["x"] = 1
        for name, target in {
            "missing": "/no/such",
            "missing member": "g/no",
            "dataset as group": "/x/y",
            "loop": "loop",
            "to": "fro",
            "fro": "to",
        }.items():
            file[name] = h5py.SoftLink(target)
        file.create_group("g")

    nowhere = leads_nowhere(
        "/missing", "/missing member", "/dataset as group", "/loop", "/to", "/fro"
    )
    check(make(write, libver=libver), nowhere)


def test_a_few_soft_links_cannot_be_made_to_take_for_ever(make, scan, within):
    def write(file):
        for number in range(30):
            file[f"l{number}"] = h5py.SoftLink("/".join([f"l{number + 1}"] * 1000))
        file["l30"] = h5py.SoftLink("/")

    with within(20):
        assert len(scan(make(write)).report.skipped) == 31


@STYLES
def test_hard_links_show_an_object_under_each_of_its_names(make, check, libver):
    def write(file):
        file["g/x"] = np.arange(3)
        file["g/x"].attrs["units"] = "K"
        file["alias"] = file["g/x"]
        file["other"] = file["g"]

    group = check(make(write, libver=libver))
    for path in ("g/x", "alias", "other/x"):
        assert group[path].attrs == {"units": "K"}


@STYLES
def test_cycles_of_links_are_cut_where_they_return(make, check, libver):
    def write(file):
        file["a/b/x"] = 1
        file["a/b/up"] = file["a"]
        file["a/b/root"] = file["/"]
        file["a/self"] = file["a"]
        file["soft"] = h5py.SoftLink("/")
        file["a/soft"] = h5py.SoftLink("/a/b")

    back = leads_back("/a/b/up", "/a/b/root", "/a/self", "/soft", "/a/soft/up", "/a/soft/root")
    check(make(write, libver=libver), back)


def test_links_that_multiply_groups_are_bounded(make, scan, within):
    def write(file):
        groups = [file.create_group(f"g{number:02d}") for number in range(25)]
        for above, below in pairwise(groups):
            above["one"] = above["two"] = below
        groups[-1]["x"] = 1

    with within(20):
        group = scan(make(write))
    assert sum(1 for _ in group.walk()) < 100_000
    assert "x" in group["g00" + "/one" * 24].arrays
    assert {reason for _, reason in group.report.skipped} == {
        "one more link to a group; too much would be shown repeatedly"
    }


@STYLES
def test_external_links_are_left_out(make, check, libver):
    def write(file):
        file["x"] = 1
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/g/y")
        file["through"] = h5py.SoftLink("/elsewhere/z")

    check(
        make(write, libver=libver),
        {
            "/elsewhere": "an external link to 'other.h5:/g/y', which is not followed",
            "/through": "'/elsewhere/z', through an external link, which is not followed",
        },
    )


@STYLES
def test_groups_are_read_to_a_depth_of_256(make, scan, read, libver):
    def write(file):
        group = file
        for _ in range(300):
            group = group.create_group("g")
            group["x"] = 1

    data = make(write, libver=libver)
    group = scan(data)
    path = "/g" * 256
    assert dict(group.report.skipped) == {path: "groups nested more than 256 deep"}
    arrays = dict(group.walk_arrays())
    assert len(arrays) == 255
    assert read(data, arrays["/g" * 255 + "/x"]) == 1


@STYLES
def test_committed_datatypes_are_no_arrays(make, check, libver):
    def write(file):
        file["type"] = np.dtype(">i4")
        file["x"] = 1

    assert list(check(make(write, libver=libver)).arrays) == ["x"]


def test_a_damaged_group_costs_only_what_is_in_it(make, scan):
    def write(file):
        file["good/x"] = 1
        file["bad/x"] = 1
        file["y"] = 1

    data = make(write)
    with h5py.File("damaged.h5", "w", driver="core", backing_store=False) as file:
        write(file)
        header = h5py.h5o.get_info(file["bad"].id).addr
    group = scan(data[:header] + b"\x09" + data[header + 1 :])
    (skipped,) = group.report.skipped
    assert skipped.path == "/bad"
    assert "object header" in skipped.reason
    assert set(dict(group.walk_arrays())) == {"/good/x", "/y"}


def test_a_damaged_root_group_is_malformed(make, scan):
    data = bytearray(make(lambda file: file.create_group("g"), libver="latest"))
    data[data.rfind(b"OHDR")] ^= 1
    data[data.find(b"OHDR")] ^= 1
    with pytest.raises(Malformed, match="object header"):
        scan(bytes(data))
