"""NamespaceDurability: which durability mode each namespace has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dosql.durability import Durability
from dosql.errors import InvalidRequestError

if TYPE_CHECKING:
    from dosql.objects.app import App


class NamespaceDurability:
    """A class may choose its own; all other classes, and tenants, have the ``default``."""

    def __init__(self, default: Durability = "local", *, has_bucket: bool = True) -> None:
        self.default: Durability = default
        self._has_bucket = has_bucket
        self._chosen: dict[str, Durability] = {}
        self.on_change: Callable[[], None] = lambda: None

    def use(self, app: App) -> None:
        """From now on the classes of this app have what they chose.

        Raises:
            InvalidRequestError: ``app_invalid``: one of them needs a bucket, and there is none.
        """
        if not self._has_bucket:
            check_without_bucket(app)
        self._chosen = {
            name: each.durability
            for name, each in app.registrations.items()
            if each.durability is not None
        }
        self.on_change()

    def of(self, namespace: str) -> Durability:
        """What the replies of its objects wait for."""
        return self._chosen.get(namespace, self.default)

    @property
    def strictest(self) -> Durability:
        """What is to hold for that which all namespaces depend on."""
        if self.default == "bucket" or "bucket" in self._chosen.values():
            return "bucket"
        return "local"


def check_without_bucket(app: App) -> None:
    """Raises InvalidRequestError (``app_invalid``) if a class cannot do without a bucket."""
    for name, each in app.registrations.items():
        if each.durability == "bucket":
            raise InvalidRequestError(
                f'{each.cls.__qualname__} (namespace {name}) has durability="bucket", and the '
                "server has no bucket: start it with --bucket file:///path or s3://bucket/prefix, "
                'or register the class with durability="local".',
                code="app_invalid",
            )
