"""Frames: the WebSocket wire format (RFC 6455), bytes in and messages out, no I/O.

Only what a server needs: frames from the client are masked, frames to it are not, and there are
no extensions. Everything the standard forbids is refused with the close code that it asks for.
"""

from __future__ import annotations

from enum import IntEnum

from websockets.utils import apply_mask

CONTROL_BYTES_MAX = 125
_CODES_OF_PEERS = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})


class Opcode(IntEnum):
    """What a frame, or a whole message, is."""

    CONT = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class FrameError(Exception):
    """The client broke the protocol; ``code`` is what the socket is closed with."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


_KNOWN = frozenset(int(opcode) for opcode in Opcode)
_FIN = 0x80
_RESERVED = 0x70
_MASKED = 0x80


class FrameReader:
    """Reads the frames of one client. An idle one holds no buffer.

    ``message_bytes_max`` bounds a message, however it is cut into frames.
    """

    __slots__ = ("_buffer", "_kind", "_message", "_message_bytes_max", "_start")

    def __init__(self, message_bytes_max: int) -> None:
        self._message_bytes_max = message_bytes_max
        self._buffer: bytes | bytearray = b""
        self._start = 0
        """Where in the buffer the next frame begins."""
        self._message: bytearray | None = None
        self._kind = Opcode.CONT
        """Of the message that `_message` is the first part of."""

    def feed(self, data: bytes) -> None:
        """Add what came from the network."""
        if self._start == len(self._buffer):
            self._buffer, self._start = data, 0
            return
        if not isinstance(self._buffer, bytearray):
            self._buffer = bytearray(self._buffer)
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    def next(self) -> tuple[Opcode, bytes] | None:
        """The next message or control frame; None if more bytes are needed.

        Raises:
            FrameError: the client broke the protocol, or its message is too large.
        """
        while True:
            frame = self._frame()
            if frame is None:
                if self._start == len(self._buffer):
                    self._buffer, self._start = b"", 0
                return None
            is_last, opcode, payload = frame
            if opcode >= Opcode.CLOSE:
                return opcode, payload
            if opcode is not Opcode.CONT:
                if self._message is not None:
                    raise FrameError(1002, "A new message began within another.")
                if is_last:
                    return opcode, payload
                self._message, self._kind = bytearray(payload), opcode
                continue
            if self._message is None:
                raise FrameError(1002, "A message was continued that had not begun.")
            self._message += payload
            if is_last:
                message, self._message = bytes(self._message), None
                return self._kind, message

    def _frame(self) -> tuple[bool, Opcode, bytes] | None:
        buffer, start = self._buffer, self._start
        available = len(buffer) - start
        if available < 2:
            return None
        head, second = buffer[start], buffer[start + 1]
        opcode, length = head & 0x0F, second & 0x7F
        if head & _RESERVED or opcode not in _KNOWN:
            raise FrameError(1002, "A frame has bits that are not in use.")
        if not second & _MASKED:
            raise FrameError(1002, "A frame of the client is not masked.")
        if opcode >= Opcode.CLOSE and (length > CONTROL_BYTES_MAX or not head & _FIN):
            raise FrameError(1002, "A control frame is too long, or cut in parts.")
        at = start + 2
        if length >= 126:
            width = 2 if length == 126 else 8
            if available < 2 + width:
                return None
            length = int.from_bytes(buffer[at : at + width], "big")
            if length < (126 if width == 2 else 65_536):
                raise FrameError(1002, "The length of a frame is written in too many bytes.")
            at += width
        whole = length + (len(self._message) if self._message is not None else 0)
        if opcode < Opcode.CLOSE and whole > self._message_bytes_max:
            raise FrameError(1009, f"Messages may have {self._message_bytes_max} bytes.")
        end = at + 4 + length
        if len(buffer) < end:
            return None
        payload = apply_mask(buffer[at + 4 : end], buffer[at : at + 4]) if length else b""
        self._start = end
        return bool(head & _FIN), Opcode(opcode), payload


def encode_frame(opcode: Opcode, payload: bytes) -> bytes:
    """A whole message or control frame from the server."""
    size = len(payload)
    if size < 126:
        return bytes((_FIN | opcode, size)) + payload
    if size < 65_536:
        return bytes((_FIN | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((_FIN | opcode, 127)) + size.to_bytes(8, "big") + payload


def encode_close(code: int, reason: str) -> bytes:
    """A Close frame; the reason is cut to what fits."""
    text = reason.encode("utf-8", "replace")[: CONTROL_BYTES_MAX - 2]
    payload = code.to_bytes(2, "big") + text.decode("utf-8", "ignore").encode()
    return encode_frame(Opcode.CLOSE, payload)


def decode_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a Close frame; 1005 if it has none.

    Raises:
        FrameError: 1002 for a code that may not be sent, 1007 for a reason that is not UTF-8.
    """
    if not payload:
        return 1005, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not (code in _CODES_OF_PEERS or 3000 <= code <= 4999):
        raise FrameError(1002, "The Close frame has no valid code.")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise FrameError(1007, "The reason of the Close frame is not UTF-8.") from None


class MessageEncoder:
    """Frames for messages. A message sent to many sockets in a row is encoded once, and all of
    them hold the same bytes."""

    __slots__ = ("_frame", "_message")

    def __init__(self) -> None:
        self._message: str | bytes = b""
        self._frame = encode_frame(Opcode.BINARY, b"")

    def encode(self, message: str | bytes) -> bytes:
        """Its frame: text or binary, by its type."""
        if message is self._message:
            return self._frame
        if isinstance(message, str):
            frame = encode_frame(Opcode.TEXT, message.encode())
        else:
            frame = encode_frame(Opcode.BINARY, message)
        self._message, self._frame = message, frame
        return frame
