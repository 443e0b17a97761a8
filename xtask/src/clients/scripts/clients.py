"""Clients of the forwards. The first argument selects one, the others are ports on 127.0.0.1.

fetch-sequence PORT COUNT, fetch-parallel PORT COUNT   requests /index.html, each over a new connection
websocket PORT                                         sends messages of several sizes, which must come back
late PORT                                              half-close by the client: the whole answer must come
early PORT KEPT                                        half-close by the server: the whole input must arrive
"""

import base64
import hashlib
import os
import socket
import struct
import sys

PATTERN = bytes(range(251)) * 16711  # as in servers.py
REQUEST = b"GET /index.html HTTP/1.1\r\nHost: guest\r\n\r\n"


def connect(port):
    return socket.create_connection(("127.0.0.1", int(port)), timeout=60)


def rest(connection):
    parts = []
    while data := connection.recv(65536):
        parts.append(data)
    return b"".join(parts)


def answer(connection):
    """Reads one HTTP answer, whose connection stays open, and returns its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += receive(connection)
    head, body = data.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200 "), head
    length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
    while len(body) < length:
        body += receive(connection)
    return body


def receive(connection):
    data = connection.recv(65536)
    assert data, "the connection ended early"
    return data


def fetch_sequence(port, count):
    bodies = set()
    for _ in range(int(count)):
        with connect(port) as connection:
            connection.sendall(REQUEST)
            bodies.add(answer(connection))
    assert len(bodies) == 1, bodies


def fetch_parallel(port, count):
    connections = [connect(port) for _ in range(int(count))]
    for connection in connections:
        connection.sendall(REQUEST)
    bodies = {answer(connection) for connection in connections}
    assert len(bodies) == 1, bodies
    for connection in connections:
        connection.close()


def websocket(port):
    connection = connect(port)
    key = base64.b64encode(os.urandom(16))
    connection.sendall(
        b"GET / HTTP/1.1\r\nHost: guest\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
    )
    stream = connection.makefile("rb")
    assert stream.readline().startswith(b"HTTP/1.1 101 ")
    headers = b"".join(iter(stream.readline, b"\r\n"))
    accept = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    assert base64.b64encode(accept) in headers, headers
    for size in (0, 5, 200, 70000):
        message = os.urandom(size)
        connection.sendall(frame(2, message))
        assert read_frame(stream) == (0x82, message), f"a message of {size} bytes"
    connection.sendall(frame(8, struct.pack(">H", 1000)))
    assert read_frame(stream) == (0x88, struct.pack(">H", 1000))
    assert stream.read(1) == b"", "the server has not closed"


def frame(opcode, data):
    mask = os.urandom(4)
    if len(data) < 126:
        length = bytes([128 | len(data)])
    elif len(data) < 65536:
        length = struct.pack(">BH", 254, len(data))
    else:
        length = struct.pack(">BQ", 255, len(data))
    return bytes([128 | opcode]) + length + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


def read_frame(stream):
    first, length = stream.read(2)
    if length == 126:
        length = struct.unpack(">H", stream.read(2))[0]
    elif length == 127:
        length = struct.unpack(">Q", stream.read(8))[0]
    return first, stream.read(length)


def late(port):
    connection = connect(port)
    sent = os.urandom(3_000_000)
    connection.sendall(sent)
    connection.shutdown(socket.SHUT_WR)
    expected = PATTERN + hashlib.sha256(sent).hexdigest().encode()
    assert rest(connection) == expected, "the answer after the half-close is not complete"


def early(port, kept):
    connection = connect(port)
    assert rest(connection) == PATTERN, "the answer before the half-close is not complete"
    # The server's direction has ended; this one must still work.
    sent = os.urandom(3_000_000)
    connection.sendall(sent)
    connection.shutdown(socket.SHUT_WR)
    expected = hashlib.sha256(sent).hexdigest().encode()
    for _ in range(100):
        with connect(kept) as asked:
            digest = rest(asked)
        if digest == expected:
            return
    raise AssertionError(f"the server received something else: {digest}")


globals()[sys.argv[1].replace("-", "_")](*sys.argv[2:])
