"""Runs a command on a terminal of its own, as a person would: prompt, size, resize, Ctrl-C, exit code."""

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time

DEADLINE = 60  # seconds for each answer

pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
seen = b""


def resize(rows, columns):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def expect(text):
    """Reads until the text has come, and forgets everything up to its end."""
    global seen
    end = time.monotonic() + DEADLINE
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0, end - time.monotonic()))
        if not ready:
            sys.exit(f"no {text!r} in {DEADLINE} s after {seen!r}")
        try:
            seen += os.read(terminal, 65536)
        except OSError:
            sys.exit(f"the terminal ended without {text!r} after {seen!r}")
    seen = seen.split(text, 1)[1]


def type_line(text):
    os.write(terminal, text + b"\r")


resize(30, 100)
expect(b"now> ")
# An equal size at the start may be transferred before or after this resize; the second one differs from both.
resize(33, 111)
type_line(b"until [ \"$(stty size)\" = '33 111' ]; do sleep 0.1; done; echo fi''rst")
expect(b"first")
expect(b"now> ")
resize(44, 122)
type_line(b"until [ \"$(stty size)\" = '44 122' ]; do sleep 0.1; done; echo sec''ond")
expect(b"second")
expect(b"now> ")
# Not the shell's own text: a shell loses a signal that arrives while it forks.
type_line(b"sh -c \"echo star''ted; exec sleep 1000\"")
expect(b"started")
os.write(terminal, b"\x03")
expect(b"now> ")
type_line(b"echo in''terrupted with $?")
expect(b"interrupted with 130")
expect(b"now> ")
type_line(b"exit 6")
_, status = os.waitpid(pid, 0)
if os.waitstatus_to_exitcode(status) != 6:
    sys.exit(f"ended with {os.waitstatus_to_exitcode(status)}, not 6")
