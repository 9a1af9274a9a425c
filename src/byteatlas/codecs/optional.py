"""The optional package that decodes what neither numcodecs nor byteatlas does."""

from __future__ import annotations

from typing import Any

from byteatlas.errors import MissingDependency

__all__ = ["imagecodecs", "imagecodecs_if_any"]


def imagecodecs(codec: str) -> Any:  # Any: it is a module
    """Import imagecodecs for a codec, by the name that it has there.

    Raises
    ------
    MissingDependency
        It is not installed, or was built without the codec.
    """
    try:
        import imagecodecs as package  # noqa: PLC0415  # optional, and slow to import
    except ImportError as error:
        raise MissingDependency(
            f"chunks encoded with {codec} are decoded by the package imagecodecs",
            hint="pip install 'byteatlas[hdf5]'",
        ) from error
    if not getattr(package, codec.upper()).available:
        raise MissingDependency(
            f"imagecodecs {package.__version__} was built without {codec}",
            hint="pip install --force-reinstall 'byteatlas[hdf5]'",
        )
    return package


def imagecodecs_if_any(codec: str) -> Any:  # Any: as above
    """Import imagecodecs for a codec that byteatlas decodes too; None where it cannot be had."""
    try:
        return imagecodecs(codec)
    except MissingDependency:
        return None
