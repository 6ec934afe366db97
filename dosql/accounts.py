"""Accounts on the wire: users of a tenant and their sessions, shared by server and client.

Times are RFC 3339 in UTC.
"""

from __future__ import annotations

from dosql.wire.body import Body


class SignUp(Body, forbid_unknown_fields=True):
    """Body of ``POST /auth/signup``."""

    email: str
    name: str
    password: str


class LogIn(Body, forbid_unknown_fields=True):
    """Body of ``POST /auth/login``."""

    email: str
    password: str


class ChangePassword(Body, forbid_unknown_fields=True):
    """Body of ``POST /auth/password``."""

    current_password: str
    new_password: str


class SetRole(Body, forbid_unknown_fields=True):
    """Body of ``PUT /admin/tenants/{name}/users/{id}/role``."""

    role: str


class UserInfo(Body, omit_defaults=False):
    """What a user is told of a user: never the hash of the password."""

    id: int
    name: str
    email: str
    role: str


class SessionCreated(Body, omit_defaults=False):
    """The only time the token itself is told."""

    token: str
    expires_at: str
    """When it dies if it is not used until then; with use it lives longer, up to the absolute
    end of the session."""
    user: UserInfo


class CurrentSession(Body, omit_defaults=False):
    """Whose session it is."""

    user: UserInfo
    expires_at: str


class TicketCreated(Body, omit_defaults=False):
    """Stands in for the token once, in the URL of one stream."""

    ticket: str
    expires_at: str


class UserDetails(Body, omit_defaults=False):
    """One user in a list."""

    id: int
    name: str
    email: str
    bio: str | None
    role: str
    created_at: str
    updated_at: str


class Pagination(Body, omit_defaults=False):
    """Where a page is among all."""

    total: int
    limit: int
    offset: int
    cursor: str | None
    """Leads to the next page, whatever comes or goes meanwhile; null at the end."""


class UserPage(Body, omit_defaults=False):
    """Users, the newest first."""

    data: list[UserDetails]
    pagination: Pagination
