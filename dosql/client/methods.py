"""RemoteMethods: what a class says of the methods that a stub calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dosql.rpc import annotations_of


class RemoteMethods:
    """The methods of a class, or of a Protocol that stands for it; without one, any name goes."""

    def __init__(self, kind: type[Any] | None) -> None:
        self._kind = kind
        self._results: dict[str, Any] = {}

    def result_of(self, name: str) -> Any:
        """What the result of this method is converted to; ``Any``: left as it came.

        Raises:
            AttributeError: the class has no such method.
            InvalidRequestError: ``invalid_annotation``.
        """
        found = self._results.get(name)
        if found is None:
            found = self._results[name] = self._look_up(name)
        return found

    def _look_up(self, name: str) -> Any:
        if self._kind is None:
            return Any
        method = getattr(self._kind, name, None)
        if not callable(method):
            raise AttributeError(f"{self._kind.__name__} has no method {name!r}")
        return result_annotation(method)


def result_annotation(method: Callable[..., Any]) -> Any:
    """What a method is annotated to return; ``Any`` if it is not.

    Raises:
        InvalidRequestError: ``invalid_annotation``.
    """
    return annotations_of(method).get("return", Any)
