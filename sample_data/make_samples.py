"""Write the sample files: `python make_samples.py [directory]`.

Everything is computed from formulas and from raw bits of PCG64, whose stream never changes, and is
rounded well above the last bit: any version of the libraries writes the same values.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Write every sample, and the checksums beside them."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    directory.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, write in SAMPLES.items():
        write(directory / name)
        data = (directory / name).read_bytes()
        lines.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
        print(f"{name:22} {len(data):8,} bytes")
    (directory / "SHA256SUMS").write_text("".join(lines))


def noise(shape: tuple[int, ...], seed: int) -> NDArray[np.float64]:
    """Return numbers in [0, 1) that are the same everywhere and for ever."""
    raw = np.asarray(np.random.PCG64(seed).random_raw(int(np.prod(shape))), np.uint64)
    return ((raw >> np.uint64(11)) * 2.0**-53).reshape(shape)


def smooth(*axes: int, seed: int) -> NDArray[np.float64]:
    """Return a wavy field in about [-1, 1] with a little noise, rounded to three decimals."""
    grids = np.meshgrid(*(np.linspace(0, 1, n) for n in axes), indexing="ij")
    waves = sum(np.sin((2 + k + seed % 3) * np.pi * g + seed) for k, g in enumerate(grids))
    return np.round(waves / len(axes) + 0.05 * (noise(axes, seed) - 0.5), 3)


def write_climate_grid(path: Path) -> None:
    """Write monthly surface climate: CF packing, bounds, groups, a string variable."""
    with netCDF4.Dataset(path, "w", format="NETCDF4") as root:
        root.title = "Monthly surface climate on a 5 degree grid"
        root.Conventions = "CF-1.11"
        root.institution = "none: the numbers are made up"
        root.realization = np.int32(1)
        root.version_numbers = np.array([2, 0, 1], np.int16)
        for name, size in {"time": None, "lat": 36, "lon": 72, "bnds": 2, "region": 4}.items():
            root.createDimension(name, size)

        months = np.arange(24)
        time = root.createVariable("time", "f8", ("time",), chunksizes=(12,))
        time.setncatts(
            {
                "standard_name": "time",
                "units": "days since 2001-01-01",
                "calendar": "365_day",
                "axis": "T",
                "bounds": "time_bnds",
            }
        )
        edges = np.concatenate([[0], np.cumsum(np.tile(_DAYS_IN_MONTH, 2))]).astype("f8")
        bounds = np.stack([edges[:-1], edges[1:]], axis=1)
        time[:] = bounds.mean(axis=1)
        root.createVariable("time_bnds", "f8", ("time", "bnds"), chunksizes=(12, 2))[:] = bounds
        for name, first, unit in (("lat", -87.5, "degrees_north"), ("lon", 2.5, "degrees_east")):
            centre = first + 5.0 * np.arange(root.dimensions[name].size)
            variable = root.createVariable(name, "f8", (name,))
            variable.setncatts({"units": unit, "axis": unit[8].upper(), "bounds": f"{name}_bnds"})
            variable.standard_name = {"lat": "latitude", "lon": "longitude"}[name]
            variable[:] = centre
            cells = root.createVariable(f"{name}_bnds", "f8", (name, "bnds"))
            cells[:] = np.stack([centre - 2.5, centre + 2.5], axis=1)

        warmth = 288 + 25 * np.cos(np.deg2rad(root["lat"][:].data * 2))[None, :, None]
        season = 8 * np.sin(2 * np.pi * months / 12)[:, None, None]
        tas = root.createVariable(
            "tas", "i2", ("time", "lat", "lon"), zlib=True, shuffle=True, complevel=4,
            chunksizes=(4, 18, 36), fill_value=np.int16(-32768),
        )  # fmt: skip
        tas.set_auto_maskandscale(False)
        tas.setncatts(
            {
                "standard_name": "air_temperature",
                "long_name": "Near-surface air temperature",
                "units": "K",
                "scale_factor": np.float64(0.01),
                "add_offset": np.float64(273.15),
                "valid_range": np.array([-10000, 10000], np.int16),
                "cell_methods": "time: mean",
                "grid_mapping": "crs",
                "coordinates": "height",
            }
        )
        kelvin = warmth + season + 3 * smooth(24, 36, 72, seed=1)
        packed = np.round((kelvin - 273.15) / 0.01).astype("i2")
        packed[:, noise((36, 72), 2) < 0.03] = -32768
        tas[:] = packed

        pr = root.createVariable(
            "pr", "f4", ("time", "lat", "lon"), zlib=True, shuffle=True, complevel=6,
            chunksizes=(1, 36, 72), fill_value=np.float32(1e20), least_significant_digit=2,
        )  # fmt: skip
        pr.setncatts({"standard_name": "precipitation_flux", "units": "mm day-1"})
        pr[:] = np.round(np.maximum(smooth(24, 36, 72, seed=3), 0) * 12, 2).astype("f4")

        mask = root.createVariable("land_mask", "i1", ("lat", "lon"))
        mask.flag_values = np.array([0, 1, 2], np.int8)
        mask.flag_meanings = "sea land ice"
        mask[:] = (noise((36, 72), 4) * 3).astype("i1")
        names = root.createVariable("region_name", str, ("region",))
        names[:] = np.array(["Arctic", "Tropics", "Südlicher Ozean", ""], object)
        root.createVariable("height", "f8", ()).setncatts({"units": "m", "positive": "up"})
        root["height"][...] = 2.0
        crs = root.createVariable("crs", "i4", ())
        crs.grid_mapping_name = "latitude_longitude"
        crs.semi_major_axis = 6378137.0
        crs[...] = 0

        forcing = root.createGroup("forcing")
        forcing.comment = "Dimensions come from the root group"
        co2 = forcing.createVariable("co2", "f4", ("time",), chunksizes=(12,))
        co2.units = "ppm"
        co2[:] = np.round(371 + 0.17 * months + 3 * np.cos(2 * np.pi * months / 12), 2)
        statistics = root.createGroup("statistics")
        mean = statistics.createVariable("tas_mean", "f8", ("lat", "lon"), zlib=True)
        mean.units = "K"
        mean[:] = np.round(kelvin.mean(axis=0), 3)
        zonal = statistics.createGroup("zonal")
        zonal.createDimension("quantile", 3)
        quantile = zonal.createVariable("quantile", "f4", ("quantile",))
        quantile[:] = [0.05, 0.5, 0.95]
        spread = zonal.createVariable("tas_quantile", "f4", ("quantile", "lat"))
        spread[:] = np.round(np.quantile(kelvin, [0.05, 0.5, 0.95], axis=(0, 2)), 2)


_DAYS_IN_MONTH = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]


def write_satellite_swath(path: Path) -> None:
    """Write a granule: 2-D coordinates, flags, contiguous, compact and big-endian data."""
    lines, pixels, bands = 120, 96, 4
    with h5py.File(path, "w", libver="earliest") as root:
        root.attrs["title"] = "Level 1B radiances of one granule"
        root.attrs["platform"] = np.bytes_(b"MADE-UP-1")
        root.attrs["orbit_number"] = np.int32(40112)
        root.attrs["time_coverage"] = ["2021-06-01T10:00:00Z", "2021-06-01T10:05:00Z"]
        for name, size in (("line", lines), ("pixel", pixels), ("band", bands)):
            root.create_dataset(name, data=np.arange(size, dtype="<i4")).make_scale(name)

        place = root.create_group("geolocation_data")
        along, across = np.meshgrid(np.arange(lines), np.arange(pixels), indexing="ij")
        latitude = np.round(40 + 0.05 * along - 0.004 * across, 3).astype("<f4")
        longitude = np.round(-10 + 0.06 * across + 0.004 * along, 3).astype("<f4")
        for name, values, unit in (
            ("latitude", latitude, "degrees_north"),
            ("longitude", longitude, "degrees_east"),
        ):
            contiguous = place.create_dataset(name, data=values)
            contiguous.attrs["units"] = unit
            _attach(contiguous, root["line"], root["pixel"])
        corners = np.stack([latitude[0, [0, -1]], latitude[-1, [0, -1]]]).astype(">f4")
        place.create_dataset("corner_latitude", data=corners, dcpl=_compact())

        data = root.create_group("observation_data")
        counts = np.round(20000 + 9000 * smooth(bands, lines, pixels, seed=5)).astype(">u2")
        counts[:, 37, :] = 65535
        radiance = data.create_dataset(
            "radiance", data=counts, chunks=(1, 50, 96), compression="gzip", shuffle=True
        )
        radiance.attrs["_FillValue"] = np.array([65535], ">u2")
        radiance.attrs["scale_factor"] = np.float32(0.01)
        radiance.attrs["add_offset"] = np.float32(-1.5)
        radiance.attrs["units"] = "W m-2 sr-1 um-1"
        radiance.attrs["coordinates"] = "/geolocation_data/latitude /geolocation_data/longitude"
        _attach(radiance, root["band"], root["line"], root["pixel"])
        quality = np.zeros((lines, pixels), "u1")
        quality[noise((lines, pixels), 6) < 0.05] = 1
        quality[37] = 255
        levels = h5py.enum_dtype({"good": 0, "doubtful": 1, "missing": 255}, basetype="u1")
        flags = data.create_dataset(
            "quality", data=quality.astype(levels), dtype=levels, chunks=(64, 64), compression=1
        )
        _attach(flags, root["line"], root["pixel"])
        bits = data.create_dataset("status_bits", (lines,), "<u2", data=np.arange(lines) % 8)
        bits.attrs["flag_masks"] = np.array([1, 2, 4], "<u2")
        bits.attrs["flag_meanings"] = "sun_glint saturated maneuver"
        _attach(bits, root["line"])

        sensor = root.create_group("sensor")
        centre = np.array([443.0, 555.0, 670.0, 865.0], "<f8")
        wavelength = sensor.create_dataset("wavelength", data=centre, dcpl=_compact())
        wavelength.attrs["units"] = "nm"
        _attach(wavelength, root["band"])
        labels = np.array([b"blue", b"green", b"red", b"near-infrared"], "S16")
        _attach(sensor.create_dataset("band_name", data=labels), root["band"])
        response = sensor.create_group("calibration").create_dataset(
            "gain", data=np.round(1 + 0.1 * noise((bands, pixels), 7), 4).astype(">f8")
        )
        _attach(response, root["band"], root["pixel"])


def _attach(dataset: Any, *scales: Any) -> None:
    for axis, scale in enumerate(scales):
        dataset.dims[axis].attach_scale(scale)


def _compact() -> Any:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    return properties


def write_mooring_series(path: Path) -> None:
    """Write hourly profiles appended one by one: thousands of tiny chunks."""
    hours, depths = 1100, 12
    with netCDF4.Dataset(path, "w", format="NETCDF4") as root:
        root.title = "Hourly temperature and salinity at a mooring"
        root.featureType = "timeSeriesProfile"
        root.createDimension("time", None)
        root.createDimension("depth", depths)
        depth = root.createVariable("depth", "f4", ("depth",))
        depth.setncatts({"units": "m", "positive": "down"})
        depth[:] = [0, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300]
        time = root.createVariable("time", "i8", ("time",), chunksizes=(512,), zlib=True)
        time.units = "seconds since 1970-01-01T00:00:00Z"
        filters = {"zlib": True, "shuffle": True, "complevel": 1, "fletcher32": True}
        for name, unit, level, span, seed in (
            ("temperature", "degree_C", 14, 6, 8),
            ("salinity", "1", 35, 1, 9),
        ):
            variable = root.createVariable(
                name, "f4", ("time", "depth"), chunksizes=(1, depths), fill_value=np.nan, **filters
            )
            variable.units = unit
            values = (level + span * smooth(hours, depths, seed=seed)).round(3).astype("f4")
            values[noise((hours, depths), seed + 10) < 0.01] = np.nan
            for hour in range(hours):  # as an instrument does
                variable[hour] = values[hour]
        time[:] = 1_600_000_000 + 3600 * np.arange(hours)


def write_radar_latest(path: Path) -> None:
    """Write a radar mosaic in the latest format: every newer chunk index, dense attributes."""
    with h5py.File(path, "w", libver="latest") as root:
        root.attrs["title"] = "Radar mosaic, newest file format"
        for number in range(12):
            root.attrs[f"site_{number:02}"] = f"radar {number}"
        y = root.create_dataset("y", data=np.arange(60, dtype="<f4") * 1000)
        x = root.create_dataset("x", data=np.arange(80, dtype="<f4") * 1000)
        time = root.create_dataset("time", data=np.arange(48) * 300.0, maxshape=(None,), chunks=16)
        time.attrs["units"] = "seconds since 2024-02-29T12:00:00Z"
        for scale in (y, x, time):
            scale.make_scale(scale.name[1:])

        echo = np.round(30 * np.maximum(smooth(48, 60, 80, seed=12), -0.5), 1).astype("<f4")
        reflectivity = root.create_dataset(  # extensible array: one unlimited axis
            "reflectivity", data=np.round(echo * 2).astype("<i2"), maxshape=(None, 60, 80),
            chunks=(1, 30, 40), compression="gzip", shuffle=True, fillvalue=-999,
        )  # fmt: skip
        reflectivity.attrs["units"] = "dBZ"
        reflectivity.attrs["scale_factor"] = 0.5
        _attach(reflectivity, time, y, x)
        total = root.create_dataset(  # fixed array
            "accumulation", data=np.round(echo.sum(axis=0), 1), chunks=(12, 16), compression="gzip"
        )
        _attach(total, y, x)
        early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        count = root.create_dataset(  # implicit: allocated early, unfiltered
            "count", (60, 80), "u1", chunks=(20, 20), dcpl=early
        )
        count[...] = (noise((60, 80), 13) * 49).astype("u1")
        _attach(count, y, x)
        height = np.round(800 + 700 * smooth(60, 80, seed=14)).astype("<i2")
        terrain = root.create_dataset(  # single chunk
            "terrain_height", data=height, chunks=(60, 80), compression="gzip"
        )
        _attach(terrain, y, x)
        strikes = root.create_dataset(  # version 2 B-tree: two unlimited axes
            "lightning", (48, 40), "<i4", maxshape=(None, None), chunks=(4, 8),
            compression="gzip", fillvalue=-1,
        )  # fmt: skip
        strikes[:20, :24] = (noise((20, 24), 15) * 100).astype("<i4")  # the rest was never written
        strikes.attrs["comment"] = "chunks without strikes were never written"


def write_ocean_classic(path: Path, form: str = "NETCDF3_CLASSIC") -> None:
    """Write an ocean model's output: record variables, big-endian, no compression."""
    with netCDF4.Dataset(path, "w", format=form) as root:
        root.title = "Ocean model output"
        root.history = "written record by record"
        for name, size in {"time": None, "level": 5, "y": 20, "x": 25, "name_length": 8}.items():
            root.createDimension(name, size)
        root.createVariable("level", "f4", ("level",))[:] = [5, 15, 30, 60, 120]
        root["level"].units = "m"
        mask = root.createVariable("mask", "i1", ("y", "x"))
        mask[:] = noise((20, 25), 16) < 0.8
        basin = root.createVariable("basin", "S1", ("level", "name_length"))
        words = np.array([b"surface", b"mixed", b"", b"mid", b"deep"], "S8")
        basin[:] = netCDF4.stringtochar(words)
        time = root.createVariable("time", "f8", ("time",))
        time.setncatts({"units": "days since 1990-01-01", "calendar": "noleap"})
        temp = root.createVariable("temp", "f4", ("time", "level", "y", "x"))
        temp.setncatts({"units": "degree_C", "missing_value": np.float32(-1e30)})
        height = root.createVariable("ssh", "i2", ("time", "y", "x"), fill_value=np.int16(-32767))
        height.set_auto_maskandscale(False)
        height.setncatts({"units": "m", "scale_factor": np.float32(0.001)})
        flag = root.createVariable("flag", "i1", ("time", "x"))  # 25 bytes a record: padded to 28
        step = None
        if form == "NETCDF3_64BIT_DATA":
            step = root.createVariable("step", "i8", ("time",))
            area = 2**40 + np.arange(500).reshape(20, 25)
            root.createVariable("area", "u8", ("y", "x"))[:] = area
            root.createVariable("level_bits", "u2", ("level",))[:] = 40000 + np.arange(5)
        for record in range(10):
            time[record] = 30.5 * record
            temp[record] = np.round(12 + 8 * smooth(5, 20, 25, seed=20 + record), 2)
            height[record] = np.round(900 * smooth(20, 25, seed=40 + record)).astype("i2")
            flag[record] = np.arange(25) % 3
            if step is not None:
                step[record] = 2**33 + record


def write_ocean_cdf5(path: Path) -> None:
    """Write the same in the 64-bit data format, with its wider integers."""
    write_ocean_classic(path, "NETCDF3_64BIT_DATA")


SAMPLES: dict[str, Callable[[Path], None]] = {
    "climate_grid.nc": write_climate_grid,
    "satellite_swath.h5": write_satellite_swath,
    "mooring_series.nc": write_mooring_series,
    "radar_latest.h5": write_radar_latest,
    "ocean_classic.nc": write_ocean_classic,
    "ocean_cdf5.nc": write_ocean_cdf5,
}


if __name__ == "__main__":
    main()
