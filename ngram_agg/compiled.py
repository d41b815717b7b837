"""The one place where functions are compiled."""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compiles a function over numpy arrays to machine code that runs without the GIL."""
    return numba.njit(nogil=True, cache=True)(function)  # type: ignore[no-any-return]


@intrinsic  # type: ignore[untyped-decorator]
def leading_zeros(_context: Any, _word: Any) -> Any:
    """Number of zero bits above the highest set bit of a uint64 (64 for 0)."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), code
