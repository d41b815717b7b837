"""What a job does with each of its elements, whatever runs it."""

from typing import Any, Protocol


class Work(Protocol):
    """What is done with each element."""

    def load(self) -> Any:
        """What `run` needs, used for many elements."""
        ...

    def run(self, loaded: Any, element: Any) -> Any:
        """Does it; the same result each time."""
        ...
