"""HDF-EOS5: names of dimensions out of the structural metadata, honest or hostile."""

import h5py
import numpy as np
import pytest

from byteatlas_scanners.hdf5.conventions import parse_struct_metadata

PHONY = "phony_dim_0"


GRIDS = """GROUP=SwathStructure
\tGROUP=SWATH_1
\t\tSwathName="Column Amount"
\t\tGROUP=Dimension
\t\t\tOBJECT=Dimension_1
\t\t\t\tDimensionName="nTimes"
\t\t\t\tSize=6
\t\t\tEND_OBJECT=Dimension_1
\t\t\tOBJECT=Dimension_2
\t\t\t\tDimensionName="nXtrack"
\t\t\t\tSize=4
\t\t\tEND_OBJECT=Dimension_2
\t\t\tOBJECT=Dimension_3
\t\t\t\tDimensionName="Unlim"
\t\t\t\tSize=-1
\t\t\tEND_OBJECT=Dimension_3
\t\tEND_GROUP=Dimension
\t\tGROUP=GeoField
\t\t\tOBJECT=GeoField_1
\t\t\t\tGeoFieldName="Latitude"
\t\t\t\tDataType=H5T_NATIVE_FLOAT
\t\t\t\tDimList=("nTimes","nXtrack")
\t\t\t\tMaxdimList=("nTimes","nXtrack")
\t\t\tEND_OBJECT=GeoField_1
\t\tEND_GROUP=GeoField
\t\tGROUP=DataField
\t\t\tOBJECT=DataField_1
\t\t\t\tDataFieldName="O3"
\t\t\t\tDataType=H5T_NATIVE_FLOAT
\t\t\t\tDimList=("nTimes",
"nXtrack","Unlim")
\t\t\tEND_OBJECT=DataField_1
\t\t\tOBJECT=DataField_2
\t\t\t\tDataFieldName="Wrong"
\t\t\t\tDimList=("nTimes","nXtrack")
\t\t\tEND_OBJECT=DataField_2
\t\tEND_GROUP=DataField
\tEND_GROUP=SWATH_1
END_GROUP=SwathStructure
GROUP=GridStructure
\tGROUP=GRID_1
\t\tGridName="NCEP"
\t\tXDim=8
\t\tYDim=5
\t\tUpperLeftPointMtrs=(-180000000.000000,-90000000.000000)
\t\tProjection=HE5_GCTP_GEO
\t\tGROUP=Dimension
\t\t\tOBJECT=Dimension_1
\t\t\t\tDimensionName="bands"
\t\t\t\tSize=3
\t\t\tEND_OBJECT=Dimension_1
\t\tEND_GROUP=Dimension
\t\tGROUP=DataField
\t\t\tOBJECT=DataField_1
\t\t\t\tDataFieldName="SST"
\t\t\t\tDimList=("bands","YDim","XDim")
\t\t\tEND_OBJECT=DataField_1
\t\tEND_GROUP=DataField
\t\tGROUP=MergedFields
\t\tEND_GROUP=MergedFields
\tEND_GROUP=GRID_1
END_GROUP=GridStructure
GROUP=PointStructure
\tGROUP=POINT_1
\t\tPointName="Buoys"
\t\tGROUP=Level
\t\t\tOBJECT=Level_1
\t\t\t\tLevelName="Sensor"
\t\t\tEND_OBJECT=Level_1
\t\tEND_GROUP=Level
\tEND_GROUP=POINT_1
END_GROUP=PointStructure
GROUP=ZaStructure
\tGROUP=ZA_1
\t\tZaName="Zonal"
\t\tGROUP=Dimension
\t\t\tOBJECT=Dimension_1
\t\t\t\tDimensionName="nLats"
\t\t\t\tSize=7
\t\t\tEND_OBJECT=Dimension_1
\t\tEND_GROUP=Dimension
\t\tGROUP=DataField
\t\t\tOBJECT=DataField_1
\t\t\t\tDataFieldName="Mean"
\t\t\t\tDimList=("nLats")
\t\t\tEND_OBJECT=DataField_1
\t\tEND_GROUP=DataField
\tEND_GROUP=ZA_1
END_GROUP=ZaStructure
END
"""


def write_hdf_eos(file, texts=(GRIDS,)):
    swath = file.create_group("HDFEOS/SWATHS/Column Amount")
    swath["Geolocation Fields/Latitude"] = np.arange(24.0).reshape(6, 4)
    swath["Data Fields/O3"] = np.arange(72.0).reshape(6, 4, 3)
    swath["Data Fields/Wrong"] = np.zeros((6, 9), "i2")  # not what its text says
    swath["Data Fields/Unlisted"] = np.zeros(2, "i2")
    file["HDFEOS/GRIDS/NCEP/Data Fields/SST"] = np.arange(120, dtype="f4").reshape(3, 5, 8)
    file["HDFEOS/POINTS/Buoys/Data/Sensor"] = np.zeros(3, [("a", "i4"), ("b", "f4")])
    file["HDFEOS/ZAS/Zonal/Data Fields/Mean"] = np.arange(7)
    for number, text in enumerate(texts):
        file[f"HDFEOS INFORMATION/StructMetadata.{number}"] = np.bytes_(text).astype("S32000")


NAMED = {
    "/HDFEOS/SWATHS/Column Amount/Geolocation Fields/Latitude": ("nTimes", "nXtrack"),
    "/HDFEOS/SWATHS/Column Amount/Data Fields/O3": ("nTimes", "nXtrack", "Unlim"),
    "/HDFEOS/GRIDS/NCEP/Data Fields/SST": ("bands", "YDim", "XDim"),
    "/HDFEOS/ZAS/Zonal/Data Fields/Mean": ("nLats",),
}
OTHERS = {
    "/HDFEOS/SWATHS/Column Amount/Data Fields/Wrong": ("nTimes", "phony_dim_2"),
    "/HDFEOS/SWATHS/Column Amount/Data Fields/Unlisted": ("phony_dim_1",),
    "/HDFEOS/POINTS/Buoys/Data/Sensor": (PHONY,),
}


@pytest.mark.parametrize("libver", [None, "latest"])
def test_hdf_eos5_fields_are_named_by_the_structural_metadata(check_named, libver):
    texts = {f"/HDFEOS INFORMATION/StructMetadata.{number}": () for number in range(2)}
    check_named(
        lambda file: write_hdf_eos(file, (GRIDS[:900], GRIDS[900:])),
        {**texts, **NAMED, **OTHERS},
        "HDF-EOS5",
        libver=libver,
    )


def test_hdf_eos5_names_do_not_depend_on_what_is_chosen(make, scan, axes_of):
    group = scan(make(write_hdf_eos), include=("*/SST",))
    path = "/HDFEOS/GRIDS/NCEP/Data Fields/SST"
    assert axes_of(group) == {path: NAMED[path]}


@pytest.mark.parametrize("kind", ["variable", "compressed", "null padded"])
def test_structural_metadata_of_any_form_counts(make, check, kind, axes_of):
    def write(file):
        write_hdf_eos(file, ())
        name = "HDFEOS INFORMATION/StructMetadata.0"
        if kind == "variable":
            file[name] = GRIDS
        elif kind == "compressed":
            data = np.array([GRIDS.encode()], "S32000")
            file.create_dataset(name, data=data, chunks=(1,), compression=1)
        else:
            kind_id = h5py.h5t.C_S1.copy()
            kind_id.set_size(len(GRIDS) + 100)
            kind_id.set_strpad(h5py.h5t.STR_NULLPAD)
            file.require_group("HDFEOS INFORMATION")
            space = h5py.h5s.create(h5py.h5s.SCALAR)
            dataset = h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind_id, space))
            dataset[()] = GRIDS.encode()

    axes = axes_of(check(make(write)))
    assert {path: axes[path] for path in NAMED} == NAMED


def test_fields_of_files_of_other_projects_are_named(corpus, check, axes_of):
    path = corpus / "hdf5/OPENDAP+bes/modules__dmrpp_module__data__dmrpp__grid_2_2d.h5"
    axes = axes_of(check(path.read_bytes()))
    for grid in ("GeoGrid1", "GeoGrid2"):
        assert axes[f"/HDFEOS/GRIDS/{grid}/Data Fields/temperature"] == ("YDim", "XDim")


HOSTILE = {
    "nothing": "",
    "garbage": "\x00\xff\x01=((\n" * 500,
    "no ends": "GROUP=GridStructure\nGROUP=GRID_1\n" * 3000,
    "only ends": "END_GROUP=GridStructure\n" * 3000,
    "a structure in itself": "GROUP=GridStructure\n" + "GROUP=GridStructure\n" * 10,
    "an open list": 'GROUP=GridStructure\nGROUP=G\nDimList=("a",\n' + '"b",\n' * 5000,
    "a long list": GRIDS.replace('("nLats")', "(" + ",".join(['"nLats"'] * 900) + ")"),
    "impossible sizes": GRIDS.replace("Size=7", "Size=" + "9" * 5000),
    "negative sizes": GRIDS.replace("Size=7", "Size=-7"),
    "names of paths": GRIDS.replace('"NCEP"', '"../../NCEP"'),
    "no text": "\udcff" * 100,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_structural_metadata_costs_only_names(make, check, kind, axes_of):
    text = HOSTILE[kind].encode("utf-8", "surrogateescape")

    def write(file):
        write_hdf_eos(file, ())
        file["HDFEOS INFORMATION/StructMetadata.0"] = np.array(text, f"S{max(len(text), 1)}")

    axes = axes_of(check(make(write)))
    assert axes["/HDFEOS/POINTS/Buoys/Data/Sensor"][0].startswith("phony_dim_")
    if kind in ("nothing", "garbage", "no ends", "only ends", "a structure in itself"):
        for path in NAMED:
            assert all(name.startswith("phony_dim_") for name in axes[path])


def test_megabytes_of_structural_metadata_are_parsed_in_time_that_grows_no_faster(within):
    lines = GRIDS + 'GROUP=GridStructure\nGROUP=G\nGROUP=DataField\nOBJECT=O\nDimList=("a",\n'
    with within(20):
        for text in (GRIDS * 1000, lines * 1000, "(=" * 2_000_000, "=(\n" * 1_000_000):
            parse_struct_metadata(text)


def test_more_structural_metadata_than_is_believable_names_nothing(make, check, axes_of):
    def write(file):
        write_hdf_eos(file, ())
        text = GRIDS.encode()
        file["HDFEOS INFORMATION/StructMetadata.0"] = np.array(text, "S5000000")

    axes = axes_of(check(make(write)))
    assert all(name.startswith("phony_dim_") for path in NAMED for name in axes[path])


def test_structural_metadata_that_cannot_be_decoded_costs_only_names(make, scan, axes_of):
    def write(file):
        write_hdf_eos(file, ())
        dataset = file.create_dataset(
            "HDFEOS INFORMATION/StructMetadata.0", (1,), "S5000", chunks=(1,), compression=1
        )
        dataset.id.write_direct_chunk((0,), b"no deflate stream")

    group = scan(make(write))
    assert set(NAMED) <= set(axes_of(group))
    assert len(group.report.skipped) == 1
    assert group.report.skipped[0].path.startswith("/HDFEOS INFORMATION/StructMetadata.0")
