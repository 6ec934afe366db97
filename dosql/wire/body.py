"""Body: the base of all that travels as JSON."""

from __future__ import annotations

import msgspec


class Body(msgspec.Struct, rename="camel", omit_defaults=True):
    """Base of all bodies: camelCase on the wire."""
