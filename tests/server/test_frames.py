"""The WebSocket wire format, by value."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.frames import (
    FrameError,
    FrameReader,
    MessageEncoder,
    Opcode,
    decode_close,
    encode_close,
    encode_frame,
)

MAX = 70_000


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A frame of a client."""
    mask = b"\x37\xfa\x21\x3d"
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65_536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes([(0x80 if fin else 0) | opcode]) + length + mask + body


def read_all(reader: FrameReader) -> list[tuple[Opcode, bytes]]:
    """What can be read now."""
    found = []
    while (one := reader.next()) is not None:
        found.append(one)
    return found


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(0, 2**32))
def test_messages_are_read_however_the_network_cuts_them(messages: list[bytes], seed: int) -> None:
    chance = random.Random(seed)
    stream = b""
    for message in messages:
        cut = chance.randint(0, len(message))
        if chance.random() < 0.5:
            stream += frame(2, message[:cut], fin=False)
            stream += frame(9, b"between")
            stream += frame(0, message[cut:])
        else:
            stream += frame(2, message)
    reader = FrameReader(MAX)
    read: list[bytes] = []
    while stream:
        size = chance.randint(1, 40)
        reader.feed(stream[:size])
        stream = stream[size:]
        read += [payload for opcode, payload in read_all(reader) if opcode is Opcode.BINARY]
    assert read == messages


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, MAX])
def test_every_form_of_length_is_read(size: int) -> None:
    reader = FrameReader(MAX)
    reader.feed(frame(1, b"x" * size))
    assert read_all(reader) == [(Opcode.TEXT, b"x" * size)]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x01x", 1002),  # not masked
        (b"\xc1\x81", 1002),  # a reserved bit
        (b"\x83\x80", 1002),  # an opcode not in use
        (b"\x09\x80", 1002),  # a ping in parts
        (b"\x89\xfe", 1002),  # a ping of 126 bytes or more
        (frame(0, b"x"), 1002),  # nothing to continue
        (frame(1, b"x", fin=False) + frame(1, b"y"), 1002),  # a message within another
        (b"\x82\xfe\x00\x05", 1002),  # length in more bytes than needed
        (b"\x82\xff" + (70_001).to_bytes(8, "big"), 1009),
        (b"\x82\xff" + b"\xff" * 8, 1009),
        (frame(2, b"x" * MAX, fin=False) + b"\x80\x81", 1009),  # too large in sum
    ],
)
def test_what_the_standard_forbids_is_refused_as_soon_as_it_shows(data: bytes, code: int) -> None:
    reader = FrameReader(MAX)
    reader.feed(data)
    with pytest.raises(FrameError) as caught:
        read_all(reader)
    assert caught.value.code == code


def test_an_idle_reader_holds_no_bytes() -> None:
    reader = FrameReader(MAX)
    reader.feed(frame(1, b"x" * 1000) + frame(1, b"y")[:3])
    read_all(reader)
    reader.feed(frame(1, b"y")[3:])
    read_all(reader)
    assert reader._buffer == b""


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_frames_of_the_server_have_the_shortest_length_and_no_mask(size: int) -> None:
    data = encode_frame(Opcode.BINARY, b"x" * size)
    head = {0: 2, 125: 2, 126: 4, 65_535: 4, 65_536: 10}[size]
    assert data[0] == 0x82 and not data[1] & 0x80
    assert len(data) == head + size


def test_close_frames_carry_code_and_reason() -> None:
    assert decode_close(encode_close(4008, "zu langsam, ä")[2:]) == (4008, "zu langsam, ä")
    assert decode_close(b"") == (1005, "")
    long = encode_close(1000, "ä" * 100)
    assert long[1] <= 125 and decode_close(long[2:])[1] == "ä" * 61


@pytest.mark.parametrize(
    ("payload", "code"),
    [(b"\x03", 1002), (b"\x03\xed", 1002), (b"\x03\xee", 1002), (b"\x03\xe8\xff", 1007)],
)
def test_close_frames_that_are_wrong_are_refused(payload: bytes, code: int) -> None:
    with pytest.raises(FrameError) as caught:
        decode_close(payload)
    assert caught.value.code == code


def test_a_message_to_many_is_encoded_once() -> None:
    encoder = MessageEncoder()
    message = "to all " * 10
    assert encoder.encode(message) is encoder.encode(message)
    assert encoder.encode("other")[0] == 0x81
    assert encoder.encode(b"")[0] == 0x82 and encoder.encode("")[0] == 0x81
