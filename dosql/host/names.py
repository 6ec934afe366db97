"""What a tenant may be called."""

from __future__ import annotations

import re

from dosql.errors import InvalidRequestError
from dosql.limits import RESERVED_TENANT_NAMES, TENANT_NAME_PATTERN

_NAME = re.compile(TENANT_NAME_PATTERN, re.ASCII)


def check_tenant_name(name: str) -> str:
    """The name itself, if it is one.

    Raises:
        InvalidRequestError: ``invalid_tenant_name``. Upper case is refused, not folded: there is
            exactly one spelling of every name.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            "A tenant name has 1 to 63 characters: a-z, 0-9, '-' and '_', "
            "beginning with a letter or digit.",
            code="invalid_tenant_name",
        )
    if name in RESERVED_TENANT_NAMES:
        raise InvalidRequestError(f"The name {name!r} is reserved.", code="invalid_tenant_name")
    return name
