# Generated from dosql/client/_async by scripts/generate_sync.py; do not edit.
"""Auth: users of a tenant and their sessions."""

from __future__ import annotations

from collections.abc import Mapping

from dosql.accounts import (
    ChangePassword,
    CurrentSession,
    LogIn,
    SessionCreated,
    SignUp,
    TicketCreated,
)
from dosql.client._sync.transport import Transport
from dosql.client.calls import Call, check_header_token, decode, encode, json_headers


class Auth:
    """What a user does with a session of a tenant.

    ``token`` is a session's; none: the one that the client was made with. Only the reply that
    makes a token tells it. Nothing here is repeated when its reply is lost: the outcome is unknown
    then, and logging in again is safe.
    """

    def __init__(self, transport: Transport, headers: Mapping[str, str]) -> None:
        self._transport = transport
        self._headers = headers

    def signup(self, email: str, name: str, password: str) -> SessionCreated:
        """A new user, and a first session.

        Raises:
            ConflictError: ``email_taken``.
            InvalidRequestError: ``invalid_email``, ``invalid_name``, ``invalid_password``.
        """
        return self._post("signup", SignUp(email, name, password), None)

    def login(self, email: str, password: str) -> SessionCreated:
        """A new session.

        Raises:
            AuthenticationError: ``invalid_credentials``.
            RateLimitedError: ``too_many_attempts``.
        """
        return self._post("login", LogIn(email, password), None)

    def refresh(self, token: str | None = None) -> SessionCreated:
        """Another token for the session; the old one is dead.

        Raises:
            AuthenticationError: ``invalid_token``.
        """
        return self._post("refresh", None, token)

    def change_password(
        self, current_password: str, new_password: str, token: str | None = None
    ) -> SessionCreated:
        """Another password, and a new session in place of all that the user has.

        Raises:
            AuthenticationError: ``invalid_credentials``, ``invalid_token``.
            InvalidRequestError: ``invalid_password``.
        """
        return self._post("password", ChangePassword(current_password, new_password), token)

    def logout(self, token: str | None = None) -> None:
        """End the session. Raises AuthenticationError (``invalid_token``)."""
        self._transport.send(self._call("POST", "logout", None, token))

    def me(self, token: str | None = None) -> CurrentSession:
        """Whose session it is. Raises AuthenticationError (``invalid_token``)."""
        reply = self._transport.send(self._call("GET", "me", None, token))
        return decode(reply, CurrentSession)

    def ticket(self, token: str | None = None) -> TicketCreated:
        """For one WebSocket or event stream that cannot send a token, within 30 s."""
        reply = self._transport.send(self._call("POST", "ticket", None, token))
        return decode(reply, TicketCreated)

    def _post(self, path: str, body: object, token: str | None) -> SessionCreated:
        return decode(self._transport.send(self._call("POST", path, body, token)), SessionCreated)

    def _call(self, method: str, path: str, body: object, token: str | None) -> Call:
        headers = json_headers(self._headers)
        if token is not None:
            headers["Authorization"] = f"Bearer {check_header_token(token)}"
        writes = method == "POST"
        content = None if body is None else encode(body)
        return Call(method, f"/auth/{path}", content, headers, writes=writes, repeatable=not writes)
