"""The one place where functions are compiled.

Numba takes a quarter of a second to import, so it waits for the first call of one of them.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compiles a function over numpy arrays to machine code that runs without the GIL."""
    return cast("Function", _Compiled(function))


class _Compiled:
    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)

    @functools.cached_property
    def _dispatcher(self) -> Any:
        import numba

        # Numba has to know its intrinsics before it compiles what calls them.
        from corpusmill.ngram_agg import intrinsics  # noqa: F401

        return numba.njit(nogil=True, cache=True)(self.__wrapped__)  # type: ignore[attr-defined]

    @property
    def _numba_type_(self) -> Any:
        """Where numba looks for the type of what a function calls."""
        return self._dispatcher._numba_type_

    def __call__(self, *arguments: Any) -> Any:
        return self._dispatcher(*arguments)


class _Intrinsic:
    """An instruction of `corpusmill.ngram_agg.intrinsics`, for compiled functions."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def _numba_type_(self) -> Any:
        from numba.core.registry import cpu_target

        from corpusmill.ngram_agg import intrinsics

        function = getattr(intrinsics, self._name)
        return cpu_target.typing_context.resolve_value_type(function)


leading_zeros: Any = _Intrinsic("leading_zeros")
prefetch: Any = _Intrinsic("prefetch")
copy_word: Any = _Intrinsic("copy_word")
