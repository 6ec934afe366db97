"""What a request for changes asks for, from its URL and its headers."""

from __future__ import annotations

from urllib.parse import parse_qsl

import msgspec

from dosql.errors import InvalidRequestError
from dosql.limits import CHANGES_PAGE_MAX
from dosql.wire.values import INT64_MAX

OPERATIONS = frozenset({"insert", "update", "delete", "schema"})
_YES = {"true": True, "1": True, "false": False, "0": False}


class ChangeRequest(msgspec.Struct, frozen=True):
    """One subscriber's wishes."""

    after: int | None = None
    """None: from now on, or from where the slot is."""
    slot: str | None = None
    tables: frozenset[str] | None = None
    """In lower case; None: all."""
    operations: frozenset[str] | None = None
    """None: all, changes of the schema too."""
    limit: int = CHANGES_PAGE_MAX
    is_page: bool = False
    """A page of JSON with what there is, instead of a stream."""
    follow: bool = True
    """A stream goes on when everything was sent."""
    int_as_text: bool = False


def change_request(query_string: bytes, headers: dict[bytes, bytes]) -> ChangeRequest:
    """Raises InvalidRequestError: a parameter that does not exist, or a value it cannot have."""
    given = _parameters(query_string)
    last = headers.get(b"last-event-id", b"").decode("latin-1").strip()
    after = given.get("after")
    accepted = headers.get(b"accept", b"").lower()
    wants_stream = b"text/event-stream" in accepted
    follow = _choice(given, "follow", _YES, True)
    wants_json = b"application/json" in accepted or not follow
    limit = _number("limit", given["limit"]) if "limit" in given else CHANGES_PAGE_MAX
    if limit == 0:
        raise InvalidRequestError("limit is a whole number from 1.")
    return ChangeRequest(
        # A browser that connects again sends the first URL and, in the header, how far it came.
        after=_number("after", last or after) if last or after is not None else None,
        slot=given.get("slot"),
        tables=_names(given, "tables"),
        operations=_operations(given),
        limit=limit,
        is_page=wants_json and not wants_stream,
        follow=follow,
        int_as_text=_choice(given, "int", {"string": True, "number": False}, False),
    )


def _parameters(query_string: bytes) -> dict[str, str]:
    known = {"after", "slot", "tables", "operations", "limit", "follow", "int"}
    given: dict[str, str] = {}
    for name, value in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True):
        if name not in known or name in given:
            raise InvalidRequestError(
                f"There are the query parameters {', '.join(sorted(known))}, each at most once."
            )
        given[name] = value
    return given


def _number(name: str, value: str | None) -> int:
    if value is None or not value.isascii() or not value.isdigit() or len(value) > 19:
        raise InvalidRequestError(f"{name} is a whole number from 0.")
    return min(int(value), INT64_MAX)


def _choice(given: dict[str, str], name: str, values: dict[str, bool], default: bool) -> bool:
    if name not in given:
        return default
    if given[name] not in values:
        raise InvalidRequestError(f"{name} is one of {', '.join(values)}.")
    return values[given[name]]


def _names(given: dict[str, str], name: str) -> frozenset[str] | None:
    if name not in given:
        return None
    names = frozenset(part.strip().lower() for part in given[name].split(",") if part.strip())
    if not names:
        raise InvalidRequestError(f"{name} names at least one, separated by commas.")
    return names


def _operations(given: dict[str, str]) -> frozenset[str] | None:
    names = _names(given, "operations")
    if names is not None and not names <= OPERATIONS:
        raise InvalidRequestError(f"operations are of {', '.join(sorted(OPERATIONS))}.")
    return names
