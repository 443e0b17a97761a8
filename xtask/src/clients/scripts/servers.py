"""Servers in the guest, each on a port of 127.0.0.1.

7001  WebSocket that sends every message back
7002  reads to the end of the input, then answers with 4 MiB and the digest of the input
7003  answers with 4 MiB and ends its output at once, then reads to the end of the input, and keeps the digest
7004  answers with that digest
7005  sends every byte back
"""

import base64
import hashlib
import os
import socket
import socketserver
import struct
import threading

PATTERN = bytes(range(251)) * 16711  # 4 MiB
digests = []


class Loopback(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 512


def rest(connection):
    """Returns the digest of everything up to the end of the input."""
    digest = hashlib.sha256()
    while data := connection.recv(65536):
        digest.update(data)
    return digest.hexdigest()


def websocket(connection):
    stream = connection.makefile("rb")
    key = None
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        if name.lower() == b"sec-websocket-key":
            key = value.strip()
    accept = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(accept) + b"\r\n\r\n"
    )
    while True:
        first, second = stream.read(2)
        length = second & 127
        if length == 126:
            length = struct.unpack(">H", stream.read(2))[0]
        elif length == 127:
            length = struct.unpack(">Q", stream.read(8))[0]
        mask = stream.read(4)
        data = stream.read(length)
        data = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        header = bytes([first])
        if length < 126:
            header += bytes([length])
        elif length < 65536:
            header += struct.pack(">BH", 126, length)
        else:
            header += struct.pack(">BQ", 127, length)
        connection.sendall(header + data)
        if first & 15 == 8:
            return


def late(connection):
    digest = rest(connection)
    connection.sendall(PATTERN + digest.encode())


def early(connection):
    connection.sendall(PATTERN)
    connection.shutdown(socket.SHUT_WR)
    digests.append(rest(connection))


def kept(connection):
    connection.sendall((digests[-1] if digests else "none").encode())


def echo(connection):
    while data := connection.recv(65536):
        connection.sendall(data)


def serve(port, answer):
    handler = type("Handler", (socketserver.BaseRequestHandler,), {"handle": lambda self: answer(self.request)})
    server = Loopback(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever).start()


for port, answer in [(7001, websocket), (7002, late), (7003, early), (7004, kept), (7005, echo)]:
    serve(port, answer)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.connect(os.environ["NOTIFY_SOCKET"])
    notify.send(b"READY=1")
