"""Namespace: all objects of one class, and how to get a stub of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from dosql.clock import Randomness
from dosql.errors import InvalidRequestError
from dosql.host.stub import Stub
from dosql.ids import IdFactory, ObjectId
from dosql.limits import OBJECT_NAME_BYTES_MAX
from dosql.objects.durable_object import DurableObject
from dosql.wire.objects import ObjectPage

if TYPE_CHECKING:
    from dosql.host.objects import Objects

ObjectT = TypeVar("ObjectT", bound=DurableObject)


class Namespace(Generic[ObjectT]):
    """What ``env.ROOM`` is. Getting ids and stubs costs nothing: an object comes into being when
    it first stores something."""

    def __init__(self, objects: Objects, name: str, randomness: Randomness) -> None:
        self.name = name
        self._objects = objects
        self._ids = IdFactory(name)
        self._randomness = randomness

    def id_from_name(self, name: str) -> ObjectId:
        """The id of the object with this name: always the same.

        Raises:
            InvalidRequestError: ``invalid_object_name``: empty, longer than 1,024 bytes, or not
                Unicode.
        """
        return self._ids.from_name(check_object_name(name))

    def new_unique_id(self) -> ObjectId:
        """A new id that no name leads to."""
        return self._ids.unique(self._randomness)

    def id_from_string(self, text: str) -> ObjectId:
        """An id from its 64 hex digits.

        Raises:
            InvalidRequestError: ``invalid_object_id``: something else, or of another namespace.
        """
        return self._ids.from_string(text)

    def get(self, id: ObjectId) -> Stub[ObjectT]:
        """The object with this id.

        Raises:
            InvalidRequestError: ``invalid_object_id``: the id is of another namespace.
        """
        if id.name is None or self._ids.from_name(id.name) != id:
            self._ids.from_string(str(id))
        return Stub(self._objects, self.name, id)

    def get_by_name(self, name: str) -> Stub[ObjectT]:
        """The object with this name. Raises as `id_from_name`."""
        return Stub(self._objects, self.name, self.id_from_name(name))

    async def list(
        self, prefix: str = "", limit: int = 1_000, cursor: str | None = None
    ) -> ObjectPage:
        """Objects that exist, by name; ``cursor`` is that of the page before."""
        return self._objects.list(self.name, prefix, limit, cursor)

    def __repr__(self) -> str:
        return f"<Namespace {self.name}>"


def check_object_name(name: object) -> str:
    """The name itself, if an object may have it. Raises as `Namespace.id_from_name`."""
    if not isinstance(name, str):
        raise _invalid(f"is text, not {type(name).__name__}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise _invalid("is valid Unicode text") from None
    if not 0 < size <= OBJECT_NAME_BYTES_MAX:
        raise _invalid(f"has 1 to {OBJECT_NAME_BYTES_MAX:,} bytes of UTF-8, not {size:,}")
    return name


def _invalid(rule: str) -> InvalidRequestError:
    return InvalidRequestError(f"An object's name {rule}.", code="invalid_object_name")
