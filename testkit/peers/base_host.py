#!/usr/bin/env python3
"""A host tool that implements the base protocol and nothing newer.

It stands in for the tools that are already in use, so it is written from
the bytes of the protocol alone, shares no code with the Rust crates, and must
never implement what a newer agent can do. One run makes one connection:

    connect to the Unix socket
    --> CONNECT 1024\\n          in one write: VMMs drop a CONNECT that is split
    <-- OK <decimal>\\n          read byte by byte: the bytes after it belong to the frames
    --> u32 BE length | JSON     a request
    <-- u32 BE length | JSON     its reply

Unknown fields of a reply are ignored. Every base field must be present and have
its base type, or the reply counts as broken.

Exit codes: 0 every reply was `ok` | 1 an error reply | 2 broken transport,
broken reply, or out of time | 64 wrong usage (EX_USAGE).
"""

import argparse
import json
import signal
import socket
import struct
import sys

PORT = 1024
FRAME_CAP = 1 << 20  # bytes of encoded JSON in one frame
LINE_CAP = 32  # bytes of the OK line, including its newline
EXIT_OK, EXIT_ERROR_REPLY, EXIT_BROKEN, EXIT_USAGE = 0, 1, 2, 64


class Broken(Exception):
    """The peer closed, stalled, or sent bytes that the base protocol does not allow."""


class Misuse(Exception):
    """The caller requested something that the base protocol cannot express."""


# --- transport ------------------------------------------------------------


def connect(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    line = b"CONNECT %d\n" % PORT
    if sock.send(line) != len(line):
        raise Broken("CONNECT did not fit one write")
    check_ok_line(read_line(sock))
    return sock


def read_line(sock):
    line = b""
    while not line.endswith(b"\n"):
        if len(line) == LINE_CAP:
            raise Broken("no newline within %d bytes: %r" % (LINE_CAP, line))
        line += read_exact(sock, 1, "the OK line")
    return line[:-1]


def check_ok_line(line):
    word, space, number = line.partition(b" ")
    # bytes.isdigit() accepts only ASCII digits, and is false for empty bytes.
    if word != b"OK" or not space or not number.isdigit():
        raise Broken("expected `OK <decimal>`, got %r" % line)


def read_exact(sock, size, what):
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise Broken("closed after %d of %d bytes of %s" % (len(data), size, what))
        data += piece
    return bytes(data)


def encode_frame(payload):
    if len(payload) > FRAME_CAP:
        raise Misuse("a request of %d bytes is over the limit of %d" % (len(payload), FRAME_CAP))
    return struct.pack(">I", len(payload)) + payload


def read_frame(sock):
    (size,) = struct.unpack(">I", read_exact(sock, 4, "a frame's length"))
    if size > FRAME_CAP:
        raise Broken("a frame of %d bytes is over the limit of %d" % (size, FRAME_CAP))
    return read_exact(sock, size, "a frame")


def check_nothing_follows(sock):
    """Checks that no bytes follow the last reply: there is one reply for each request."""
    try:
        extra = sock.recv(64, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return
    if extra:
        raise Broken("bytes after the last reply: %r" % extra)


# --- replies --------------------------------------------------------------


def is_unsigned(value):
    # bool is an int to Python, but `true` is not a number on the wire.
    return type(value) is int and 0 <= value < 1 << 64


def is_i32(value):
    return type(value) is int and -(1 << 31) <= value < 1 << 31


def is_text(value):
    return type(value) is str


MESSAGE = {"message": is_text}
REPLY_FIELDS = {
    "health_check": {"uptime_secs": is_unsigned, "hostname": is_text},
    "configure_network": MESSAGE,
    "exec": {"exit_code": is_i32, "stdout": is_text, "stderr": is_text},
    "report_status": {
        "uptime_secs": is_unsigned,
        "memory_total_mb": is_unsigned,
        "memory_used_mb": is_unsigned,
        "disk_total_gb": is_unsigned,
        "disk_used_gb": is_unsigned,
    },
    "write_file": MESSAGE,
}


def reject_constant(name):
    raise ValueError("%s is not JSON" % name)  # Python accepts NaN and Infinity


def parse_reply(payload, request_type):
    """Returns the reply's object; it must contain every base field of its kind."""
    try:
        reply = json.loads(payload.decode("utf-8"), parse_constant=reject_constant)
    except (ValueError, RecursionError) as error:
        raise Broken("the reply is not JSON: %s" % error)
    if type(reply) is not dict:
        raise Broken("the reply is not an object: %r" % reply)
    status = reply.get("status")
    if status == "ok":
        fields = REPLY_FIELDS.get(request_type, {})
    elif status == "error":
        fields = MESSAGE
    else:
        raise Broken("`status` is neither ok nor error: %r" % status)
    for name, has_base_type in fields.items():
        if name not in reply:
            raise Broken("the reply lacks `%s`" % name)
        if not has_base_type(reply[name]):
            raise Broken("`%s` does not have its base type: %r" % (name, reply[name]))
    return reply


def exit_code_of(replies):
    every_ok = all(reply["status"] == "ok" for reply in replies)
    return EXIT_OK if every_ok else EXIT_ERROR_REPLY


# --- commands -------------------------------------------------------------


def request_of(args):
    if args.verb == "health":
        return {"type": "health_check"}
    if args.verb == "status":
        return {"type": "report_status"}
    if args.verb == "network":
        return {
            "type": "configure_network",
            "ip": args.ip,
            "gateway": args.gateway,
            "dns": args.dns,
        }
    if args.verb == "exec":
        return {"type": "exec", "command": args.cmd, "args": args.args}
    return {
        "type": "write_file",
        "path": args.path,
        "content": args.content,
        "mode": args.mode,
        "append": args.append,
    }


def run_one(sock, request):
    sock.sendall(encode_frame(encode(request)))
    answer = read_frame(sock)
    reply = parse_reply(answer, request["type"])
    print_bytes(answer)
    return [reply]


def encode(request):
    try:
        return json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError as error:
        raise Misuse("an argument is not UTF-8: %s" % error)


def run_session(sock):
    """Sends each request after the reply to the previous one."""
    replies = []
    for line in request_lines():
        sock.sendall(encode_frame(line))
        replies.append(read_reply_to(sock, line))
    return replies


def run_pipelined(sock):
    """Writes all requests before it reads the first reply.

    Requests that exceed the socket's buffer would block both sides until the deadline.
    """
    lines = list(request_lines())
    sock.sendall(b"".join(encode_frame(line) for line in lines))
    return [read_reply_to(sock, line) for line in lines]


def read_reply_to(sock, line):
    reply = parse_reply(read_frame(sock), type_of(line))
    # Encoded again, because the agent may write its JSON on several lines.
    print_bytes(json.dumps(reply, ensure_ascii=True, separators=(",", ":")).encode())
    return reply


def request_lines():
    """Yields lines unchanged, so that even invalid JSON can be sent."""
    for line in iter(sys.stdin.buffer.readline, b""):
        line = line.strip()
        if line:
            yield line


def type_of(line):
    try:
        return json.loads(line)["type"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def print_bytes(data):
    sys.stdout.buffer.write(data + b"\n")
    sys.stdout.buffer.flush()


# --- command line ---------------------------------------------------------


class Parser(argparse.ArgumentParser):
    def error(self, message):
        # argparse would exit with 2, which stands for a broken transport here.
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, "base_host: %s\n" % message)


def octal_mode(text):
    mode = int(text, 8)
    if not 0 <= mode <= 0o7777:
        raise ValueError(text)
    return mode


def parse_args():
    parser = Parser(prog="base_host.py", description="Speak the base protocol to one agent.")
    parser.add_argument("socket", help="hybrid-vsock Unix socket")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECS",
                        help="deadline of the whole run (default: 30)")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    verbs.add_parser("health")
    verbs.add_parser("status")
    network = verbs.add_parser("network")
    network.add_argument("ip", help="address/prefix")
    network.add_argument("gateway")
    network.add_argument("dns", nargs="*")
    execute = verbs.add_parser("exec")
    execute.add_argument("cmd")
    execute.add_argument("args", nargs=argparse.REMAINDER)
    write = verbs.add_parser("write")
    write.add_argument("path")
    write.add_argument("mode", type=octal_mode, help="octal, as for chmod")
    write.add_argument("content")
    write.add_argument("--append", action="store_true")
    verbs.add_parser("session", help="requests from stdin, one per line; waits for each reply")
    verbs.add_parser("pipelined", help="like session, but writes all requests before it reads")
    args = parser.parse_args()
    if not args.timeout > 0:
        parser.error("--timeout must be above 0")
    return args


def start_deadline(secs):
    """Starts one timer that covers connect, handshake, every frame and stdin."""
    signal.signal(signal.SIGALRM, on_alarm)
    # The timer repeats: an alarm just before a blocking call does not interrupt it.
    signal.setitimer(signal.ITIMER_REAL, secs, 0.05)


def stop_deadline():
    signal.setitimer(signal.ITIMER_REAL, 0)


def on_alarm(_signal, _frame):
    stop_deadline()
    raise Broken("out of time")


def main():
    args = parse_args()
    try:
        start_deadline(args.timeout)
        with connect(args.socket) as sock:
            if args.verb == "session":
                replies = run_session(sock)
            elif args.verb == "pipelined":
                replies = run_pipelined(sock)
            else:
                replies = run_one(sock, request_of(args))
            check_nothing_follows(sock)
    except (Broken, OSError) as error:
        print("base_host: %s" % error, file=sys.stderr)
        return EXIT_BROKEN
    except Misuse as error:
        print("base_host: %s" % error, file=sys.stderr)
        return EXIT_USAGE
    finally:
        stop_deadline()
    return exit_code_of(replies)


if __name__ == "__main__":
    sys.exit(main())
