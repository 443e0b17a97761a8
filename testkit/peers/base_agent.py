#!/usr/bin/env python3
"""A VMM and an agent in one process, both from before protocol 2.

It stands in for the agents that are already installed, so it is written from
the bytes of the protocol alone, shares no code with the Rust crates, and must
never implement anything newer: no `agent` object, no error codes, no streams.

As a VMM it is as strict as real ones: the CONNECT line must arrive in one
write and within 2 seconds, bytes sent before `OK` are lost, and a port without
a listener is rejected by closing without a line. As an agent it requires every
base field and ignores unknown fields.

`exec` really runs its command, as the user who started this program. The network
of the machine is never changed, and files are written below `--root` only.

Prints `listening` when it accepts connections. SIGTERM or SIGINT ends it, kills
the commands still running and removes the socket. Exit codes: 0 ended by such a
signal | 1 could not start | 64 wrong usage (EX_USAGE).
"""

import argparse
import ipaddress
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

CONNECT_LINE = b"CONNECT 1024\n"
OK_LINE = b"OK 1073741824\n"  # the number has no meaning; real VMMs differ
CONNECT_DEADLINE_SECS = 2.0
FRAME_CAP = 1 << 20  # bytes of encoded JSON in one frame
EXIT_OK, EXIT_START, EXIT_USAGE = 0, 1, 64


class Refused(Exception):
    """The request cannot be served; the text becomes the error reply."""


class Closed(Exception):
    """The host closed the connection, or broke the framing."""


# --- state ----------------------------------------------------------------


class Guest:
    """State of the simulated machine; shared by all connections."""

    def __init__(self, hostname, root, log):
        self.hostname = hostname
        self.root = root
        self.log = log
        self.started = time.monotonic()
        self.lock = threading.Lock()
        self.network = None  # the last configure_network, stored but never applied
        self.children = set()
        self.ending = False

    def uptime_secs(self):
        return int(time.monotonic() - self.started)

    def record(self, request):
        if self.log is None:
            return
        line = json.dumps(request, separators=(",", ":")) + "\n"
        with self.lock:
            self.log.write(line)
            self.log.flush()

    def spawn(self, argv):
        # Under the lock, so that the end of the process kills every child.
        with self.lock:
            if self.ending:
                raise Refused("shutting down")
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # a new process group, so that a kill reaches all of it
            )
            self.children.add(child)
            return child

    def forget(self, child):
        with self.lock:
            self.children.discard(child)

    def kill_children(self):
        with self.lock:
            self.ending = True
            for child in self.children:
                try:
                    os.killpg(child.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass


# --- requests -------------------------------------------------------------


def field(request, name, kind):
    """Returns a base field; `type() is`, because a bool is an int to isinstance()."""
    if name not in request:
        raise Refused("missing field `%s`" % name)
    value = request[name]
    if type(value) is not kind:
        raise Refused("field `%s` is not a %s" % (name, kind.__name__))
    return value


def texts(request, name):
    values = field(request, name, list)
    if any(type(value) is not str for value in values):
        raise Refused("field `%s` is not a list of strings" % name)
    return values


def health_check(guest, _request):
    return {"uptime_secs": guest.uptime_secs(), "hostname": guest.hostname}


def report_status(guest, _request):
    return {
        "uptime_secs": guest.uptime_secs(),
        "memory_total_mb": 488,
        "memory_used_mb": 61,
        "disk_total_gb": 2,
        "disk_used_gb": 1,
    }


def configure_network(guest, request):
    ip = field(request, "ip", str)
    gateway = field(request, "gateway", str)
    dns = texts(request, "dns")
    try:
        if "/" not in ip:
            raise ValueError("%r has no prefix length" % ip)
        ipaddress.ip_interface(ip)
        for address in [gateway] + dns:
            ipaddress.ip_address(address)
    except ValueError as error:
        raise Refused("bad address: %s" % error)
    with guest.lock:
        guest.network = {"ip": ip, "gateway": gateway, "dns": dns}
    return {"message": "network configured"}


def execute(guest, request):
    argv = [field(request, "command", str)] + texts(request, "args")
    try:
        child = guest.spawn(argv)
    except (OSError, ValueError) as error:  # ValueError: a NUL or a lone surrogate
        raise Refused("failed to execute %s: %s" % (argv[0], error))
    try:
        stdout, stderr = child.communicate()
    finally:
        guest.forget(child)
    code = child.returncode
    return {
        "exit_code": code if code >= 0 else 128 - code,  # as a shell reports a signal
        "stdout": stdout.decode("utf-8", "replace"),
        "stderr": stderr.decode("utf-8", "replace"),
    }


def write_file(guest, request):
    path = field(request, "path", str)
    content = field(request, "content", str)
    mode = field(request, "mode", int)
    append = field(request, "append", bool)
    if not 0 <= mode <= 0o7777:
        raise Refused("mode %d is out of range" % mode)
    try:
        data = content.encode("utf-8")
        write_below(guest.root, path, data, mode, append)
    except (OSError, ValueError) as error:
        raise Refused("failed to write %s: %s" % (path, error))
    return {"message": "wrote %d bytes to %s" % (len(data), path)}


def write_below(root, path, data, mode, append):
    """Writes a file below `root`. Opens one directory at a time and follows no symlink."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not path.startswith("/") or not parts or ".." in parts:
        raise ValueError("not an absolute path of a file")
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            try:
                os.mkdir(part, 0o755, dir_fd=here)
            except FileExistsError:
                pass
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            below = os.open(part, flags, dir_fd=here)
            os.close(here)
            here = below
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
        flags |= os.O_APPEND if append else os.O_TRUNC
        with os.fdopen(os.open(parts[-1], flags, 0o600, dir_fd=here), "wb") as file:
            os.fchmod(file.fileno(), mode)  # independent of the umask
            file.write(data)
    finally:
        os.close(here)


REQUESTS = {
    "health_check": health_check,
    "report_status": report_status,
    "configure_network": configure_network,
    "exec": execute,
    "write_file": write_file,
}


def answer(guest, payload):
    """Returns the encoded reply to one frame; it always fits a frame."""
    try:
        reply = encode(dict(status="ok", **serve_request(guest, payload)))
        if len(reply) > FRAME_CAP:
            raise Refused("the reply does not fit a frame")
        return reply
    except Refused as error:
        # The text may quote the request: keep it far below the limit.
        return encode({"status": "error", "message": str(error)[:1000]})
    except RecursionError:
        return encode({"status": "error", "message": "nested too deeply"})


def serve_request(guest, payload):
    try:
        request = json.loads(payload.decode("utf-8"))
    except ValueError as error:
        raise Refused("bad JSON: %s" % error)
    if type(request) is not dict:
        raise Refused("a request must be an object")
    guest.record(request)
    kind = field(request, "type", str)
    if kind not in REQUESTS:
        raise Refused("unknown request type `%s`" % kind)
    return REQUESTS[kind](guest, request)


def encode(reply):
    # ASCII escapes need more bytes, but can represent even a lone surrogate.
    return json.dumps(reply, separators=(",", ":")).encode("ascii")


# --- transport ------------------------------------------------------------


def send_whole(sock, data):
    sock.sendall(data)


def send_dripping(sock, data):
    """Writes one byte at a time. The first pause, or the reader would get them merged."""
    for index in range(len(data)):
        sock.sendall(data[index:index + 1])
        if index < 64:
            time.sleep(0.0005)


def accept_handshake(sock, send):
    """Handles CONNECT as a VMM does: exactly one read decides."""
    sock.settimeout(CONNECT_DEADLINE_SECS)
    received = sock.recv(4096)
    line, newline, _lost = received.partition(b"\n")
    if line + newline != CONNECT_LINE:
        raise Closed("rejected %r" % received[:64])
    sock.settimeout(None)  # hosts pool connections, so a connection may be idle
    send(sock, OK_LINE)


def read_exact(sock, size):
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise Closed("closed")
        data += piece
    return bytes(data)


def read_frame(sock):
    (size,) = struct.unpack(">I", read_exact(sock, 4))
    if size > FRAME_CAP:
        raise Closed("a frame of %d bytes" % size)
    return read_exact(sock, size)


def serve_connection(guest, sock, send):
    with sock:
        try:
            accept_handshake(sock, send)
            while True:
                reply = answer(guest, read_frame(sock))
                send(sock, struct.pack(">I", len(reply)) + reply)
        except (Closed, OSError):
            return


# --- process --------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, "base_agent: %s\n" % message)


def parse_args():
    parser = Parser(prog="base_agent.py", description="Simulate a VM with a base agent.")
    parser.add_argument("socket", help="Unix socket to listen on; must not exist yet")
    parser.add_argument("--hostname", default="base-guest", metavar="NAME")
    parser.add_argument("--root", metavar="DIR",
                        help="root directory of write_file (default: a new directory, "
                             "removed at the end)")
    parser.add_argument("--log", metavar="FILE",
                        help="append every request object as a JSON line")
    parser.add_argument("--drip", action="store_true", help="write one byte at a time")
    return parser.parse_args()


def signal_socket():
    """Returns a socket that is readable after SIGTERM or SIGINT.

    An exception from a handler would be lost if the signal came just before accept().
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach())
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    return reader


def listen(path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o077)  # clients can run commands: only this user may connect
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    listener.listen(128)
    return listener


def remove_socket(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # a test that simulates a vanishing VM has removed it


def serve(guest, listener, ended, send):
    listener.setblocking(False)  # the peer may leave between select() and accept()
    print("listening", flush=True)
    while True:
        ready, _, _ = select.select([listener, ended], [], [])
        if ended in ready:
            return
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            continue
        sock.setblocking(True)
        threading.Thread(
            target=serve_connection, args=(guest, sock, send), daemon=True
        ).start()


def run(args, root, ended):
    log = open(args.log, "a", encoding="utf-8") if args.log else None
    guest = Guest(args.hostname, root, log)
    listener = listen(args.socket)
    try:
        serve(guest, listener, ended, send_dripping if args.drip else send_whole)
    finally:
        guest.kill_children()
        remove_socket(args.socket)


def main():
    args = parse_args()
    ended = signal_socket()
    own_root = None if args.root else tempfile.mkdtemp(prefix="base-agent-")
    try:
        run(args, args.root or own_root, ended)
    except OSError as error:
        print("base_agent: %s: %s" % (args.socket, error), file=sys.stderr)
        return EXIT_START
    finally:
        if own_root is not None:
            shutil.rmtree(own_root, ignore_errors=True)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
