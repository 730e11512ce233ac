"""Packages that are installed only where they are needed."""

from __future__ import annotations


def lacks(error: ModuleNotFoundError, package: str) -> bool:
    """Whether what is not installed is a package, and nothing that it or code of ours would import."""
    return error.name is not None and error.name.partition(".")[0] == package
