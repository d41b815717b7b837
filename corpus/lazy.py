"""Packages whose names are imported when they are asked for.

So that what a command's help needs of a package doesn't wait for torch or numba.
"""

import importlib
from collections.abc import Callable, Collection, Mapping
from typing import Any


def imported_when_asked(package: str, homes: Mapping[str, Collection[str]]) -> Callable[[str], Any]:
    """A package's `__getattr__` (PEP 562).

    Args:
      package: its `__name__`.
      homes: module -> the names that the package has from it.
    """
    modules = {name: module for module, names in homes.items() for name in names}

    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(modules[name]), name)

    return find
