"""What a job does with each of its elements, whatever runs it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


class Work(Protocol):
    """What is done with each element."""

    def load(self) -> Any:
        """What `run` needs, used for many elements."""
        ...

    def run(self, loaded: Any, element: Any) -> Any:
        """Does it; the same result each time."""
        ...


@dataclass(frozen=True)
class Calls:
    """Work that needs nothing loaded: calls a function with the element and the arguments."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def load(self) -> None:
        """Nothing."""

    def run(self, _: None, element: Any) -> Any:
        return self.function(element, *self.arguments)
