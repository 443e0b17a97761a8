#!/usr/bin/env python3
"""Tests of the two base peers with each other, and of each with a misbehaving peer.

    python3 -m unittest discover -s testkit/peers
"""

import json
import os
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
HOST = [sys.executable, os.path.join(HERE, "base_host.py")]
AGENT = [sys.executable, os.path.join(HERE, "base_agent.py")]
DEADLINE = 20  # seconds; only a failing test waits that long


def frame(payload):
    return struct.pack(">I", len(payload)) + payload


def host(path, *args, stdin=b""):
    return subprocess.run(
        HOST + [path] + list(args), input=stdin, capture_output=True, timeout=DEADLINE
    )


class AgentCase(unittest.TestCase):
    """Starts a base agent, and sends it requests with the base host."""

    options = []

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = os.path.join(scratch.name, "root")
        os.mkdir(self.root)
        self.path = os.path.join(scratch.name, "vm.vsock")
        self.log = os.path.join(scratch.name, "log")
        self.agent = subprocess.Popen(
            AGENT + [self.path, "--hostname", "old-guest", "--root", self.root]
            + ["--log", self.log] + self.options,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(self.stop)
        self.assertTrue(select.select([self.agent.stdout], [], [], DEADLINE)[0])
        self.assertEqual(self.agent.stdout.readline(), b"listening\n")

    def stop(self):
        self.agent.terminate()
        code = self.agent.wait(DEADLINE)
        self.agent.stdout.close()
        return code

    def reply(self, *args, code=0):
        done = host(self.path, *args)
        self.assertEqual(done.returncode, code, done)
        return json.loads(done.stdout)

    def raw(self):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(DEADLINE)
        sock.connect(self.path)
        self.addCleanup(sock.close)
        return sock

    def shaken(self):
        sock = self.raw()
        sock.sendall(b"CONNECT 1024\n")
        self.assertEqual(read(sock, 14), b"OK 1073741824\n")
        return sock

    def requests(self):
        with open(self.log) as lines:
            return [json.loads(line) for line in lines]


def read(sock, size):
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            break
        data += piece
    return data


def read_reply(sock):
    (size,) = struct.unpack(">I", read(sock, 4))
    return json.loads(read(sock, size))


class EveryCommand(AgentCase):
    def test_health_has_no_agent_object(self):
        reply = self.reply("health")
        self.assertEqual(set(reply), {"status", "uptime_secs", "hostname"})
        self.assertEqual(reply["hostname"], "old-guest")

    def test_status_has_the_five_base_fields(self):
        fields = {"uptime_secs", "memory_total_mb", "memory_used_mb", "disk_total_gb",
                  "disk_used_gb"}
        self.assertEqual(set(self.reply("status")), fields | {"status"})

    def test_network_is_answered_and_logged_with_and_without_dns(self):
        for dns in [[], ["1.1.1.1", "2606:4700:4700::1111"]]:
            reply = self.reply("network", "10.0.0.2/16", "10.0.0.1", *dns)
            self.assertEqual(reply, {"status": "ok", "message": "network configured"})
            self.assertEqual(self.requests()[-1], {
                "type": "configure_network", "ip": "10.0.0.2/16", "gateway": "10.0.0.1",
                "dns": dns})

    def test_a_bad_address_is_an_error_reply(self):
        self.assertIn("prefix", self.reply("network", "10.0.0.2", "10.0.0.1", code=1)["message"])
        self.reply("network", "10.0.0.2/16", "gateway", code=1)

    def test_exec_runs_and_reports_the_exit_code_and_both_streams(self):
        script = "echo out; echo err >&2; exit 7"
        self.assertEqual(self.reply("exec", "sh", "-c", script), {
            "status": "ok", "exit_code": 7, "stdout": "out\n", "stderr": "err\n"})

    def test_exec_passes_options_and_text_through_unchanged(self):
        words = ["-n", "--append", "--", "ü \"'\\ \n", "😀"]
        reply = self.reply("exec", "printf", "%s|", *words)
        self.assertEqual(reply["stdout"], "".join(word + "|" for word in words))

    def test_exec_of_a_killed_command_is_128_plus_the_signal(self):
        self.assertEqual(self.reply("exec", "sh", "-c", "kill -9 $$")["exit_code"], 137)

    def test_exec_of_a_missing_command_is_an_error_reply(self):
        self.assertIn("/no/such", self.reply("exec", "/no/such", code=1)["message"])

    def test_exec_output_that_is_not_utf8_is_converted(self):
        self.assertEqual(self.reply("exec", "printf", "a\\377b")["stdout"], "a\ufffdb")

    def test_write_file_sets_the_mode_and_appends(self):
        reply = self.reply("write", "/root/.ssh/keys", "600", "grün\n")
        self.assertEqual(reply["message"], "wrote 6 bytes to /root/.ssh/keys")
        self.reply("write", "/root/.ssh/keys", "640", "two\n", "--append")
        path = os.path.join(self.root, "root/.ssh/keys")
        with open(path, encoding="utf-8") as file:
            self.assertEqual(file.read(), "grün\ntwo\n")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o640)
        self.reply("write", "/root/.ssh/keys", "0600", "new")
        with open(path, encoding="utf-8") as file:
            self.assertEqual(file.read(), "new")
        self.assertEqual([(request["mode"], request["append"]) for request in self.requests()],
                         [(384, False), (416, True), (384, False)])

    def test_write_file_never_leaves_its_root(self):
        outside = os.path.join(os.path.dirname(self.root), "outside")
        os.mkdir(outside)
        os.symlink(outside, os.path.join(self.root, "dir"))
        os.symlink(os.path.join(outside, "file"), os.path.join(self.root, "link"))
        for path in ["/../outside/a", "/x/../../outside/a", "/dir/a", "/link", "relative", "/", ""]:
            self.reply("write", path, "600", "x", code=1)
        self.assertEqual(os.listdir(outside), [])

    def test_session_and_pipelined_answer_in_order_also_after_an_error(self):
        lines = [
            b'{"type":"exec","command":"sh","args":["-c","sleep 0.2; echo first"]}',
            b'{"type":"no_such_type"}',
            b'not json at all',
            b'[]',
            b'{"type":"exec","command":"echo","args":["second"],"timeout_ms":5,"later":{}}',
            b'{"type":"exec","command":"echo"}',
            b'{"type":"health_check"}',
        ]
        for verb in ["session", "pipelined"]:
            done = host(self.path, verb, stdin=b"\n".join(lines))
            self.assertEqual(done.returncode, 1, done)
            replies = [json.loads(line) for line in done.stdout.splitlines()]
            self.assertEqual([reply["status"] for reply in replies],
                             ["ok", "error", "error", "error", "ok", "error", "ok"])
            self.assertEqual(replies[0]["stdout"], "first\n")
            self.assertEqual(replies[4]["stdout"], "second\n")
            self.assertIn("args", replies[5]["message"])

    def test_session_with_ok_replies_only_exits_0(self):
        lines = b'{"type":"health_check"}\n\n{"type":"report_status"}\n'
        for verb in ["session", "pipelined"]:
            self.assertEqual(host(self.path, verb, stdin=lines).returncode, 0)

    def test_a_reply_too_large_for_a_frame_is_an_error_reply(self):
        reply = self.reply("exec", "head", "-c", "1100000", "/dev/zero", code=1)
        self.assertIn("fit", reply["message"])

    def test_a_large_reply_arrives_whole(self):
        script = "head -c 1000000 /dev/zero | tr '\\000' x"
        self.assertEqual(self.reply("exec", "sh", "-c", script)["stdout"], "x" * 1000000)

    def test_a_request_too_large_or_not_utf8_is_misuse(self):
        self.assertEqual(host(self.path, "session", stdin=b"x" * (2**20 + 1)).returncode, 64)
        self.assertEqual(host(self.path, "exec", b"\xff").returncode, 64)
        self.assertEqual(host(self.path, "write", "/a", "9", "x").returncode, 64)
        self.assertEqual(host(self.path, "dance").returncode, 64)


class EveryCommandDripping(EveryCommand):
    """The same tests, with replies that arrive one byte at a time."""

    options = ["--drip"]


class TheAgent(AgentCase):
    def test_other_ports_and_malformed_lines_are_rejected_without_a_line(self):
        for line in [b"CONNECT 1025\n", b"CONNECT 01024\n", b"connect 1024\n", b"\n",
                     b"CONNECT 1024", b"CONNECT 1024\r\n"]:
            sock = self.raw()
            sock.sendall(line)
            self.assertEqual(sock.recv(64), b"", line)

    def test_a_connect_over_two_writes_is_dropped(self):
        sock = self.raw()
        sock.sendall(b"CONN")
        time.sleep(0.1)
        try:
            sock.sendall(b"ECT 1024\n")
            self.assertEqual(sock.recv(64), b"")
        except (BrokenPipeError, ConnectionResetError):
            pass

    def test_a_connection_without_connect_is_closed_after_two_seconds(self):
        started = time.monotonic()
        self.assertEqual(self.raw().recv(64), b"")
        self.assertGreater(time.monotonic() - started, 1.5)

    def test_bytes_sent_before_ok_are_lost(self):
        sock = self.raw()
        sock.sendall(b"CONNECT 1024\n" + frame(b'{"type":"exec","command":"x","args":[]}'))
        read(sock, 14)
        sock.sendall(frame(b'{"type":"health_check"}'))
        self.assertEqual(read_reply(sock)["hostname"], "old-guest")

    def test_requests_may_arrive_in_any_chunks(self):
        sock = self.shaken()
        for byte in frame(b'{"type":"health_check"}') * 2:
            sock.sendall(bytes([byte]))
            time.sleep(0.001)
        self.assertEqual([read_reply(sock)["status"] for _ in range(2)], ["ok", "ok"])

    def test_connections_are_served_concurrently(self):
        slow, quick = self.shaken(), self.shaken()
        slow.sendall(frame(b'{"type":"exec","command":"sleep","args":["60"]}'))
        quick.sendall(frame(b'{"type":"health_check"}'))
        self.assertEqual(read_reply(quick)["status"], "ok")

    def test_a_length_over_the_limit_closes_the_connection(self):
        sock = self.shaken()
        sock.sendall(struct.pack(">I", 2**20 + 1))
        self.assertEqual(sock.recv(64), b"")

    def test_nesting_and_wrong_types_are_error_replies(self):
        sock = self.shaken()
        for payload in [
            b"", b"[" * 500000, b'{"type":"health_check","x":' + b"[" * 900 + b"]" * 900 + b"}",
            b'{"type":7}', b'{"type":"write_file","path":"/a","content":"","mode":true,"append":false}',
            b'{"type":"write_file","path":"/a","content":"","mode":384,"append":0}',
            b'{"type":"exec","command":"a\\u0000b","args":[]}',
            b'{"type":"exec","command":"echo","args":["\\ud800"]}',
            b'{"type":"exec","command":"echo","args":[1]}',
        ]:
            sock.sendall(frame(payload))
            reply = read_reply(sock)
            if b"health_check" not in payload:  # the nesting limit depends on Python
                self.assertEqual(reply["status"], "error", payload[:80])
            self.assertEqual(set(reply) & {"agent", "code", "field"}, set())

    def test_sigterm_kills_commands_and_removes_the_socket(self):
        sock = self.shaken()
        sock.sendall(frame(b'{"type":"exec","command":"sh","args":["-c","echo $$ > %s; sleep 60"]}'
                           % os.path.join(self.root, "pid").encode()))
        pid = self.wait_for_pid()
        self.assertEqual(self.stop(), 0)
        self.assertFalse(os.path.exists(self.path))
        self.assertTrue(gone(pid), "the command outlived the agent")

    def wait_for_pid(self):
        until = time.monotonic() + DEADLINE
        while time.monotonic() < until:
            try:
                with open(os.path.join(self.root, "pid")) as file:
                    return int(file.read())
            except (FileNotFoundError, ValueError):
                time.sleep(0.01)
        self.fail("the command did not start")

    def test_a_path_that_exists_is_not_taken_over(self):
        second = subprocess.run(AGENT + [self.path], capture_output=True, timeout=DEADLINE)
        self.assertEqual((second.returncode, second.stdout), (1, b""))
        self.reply("health")


def gone(pid):
    """Reports whether the process has ended; a zombie has ended, too."""
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        try:
            with open("/proc/%d/stat" % pid) as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


class TheHost(unittest.TestCase):
    """Tests of the base host with an agent that sends scripted bytes."""

    OK = b"OK 1073741824\n"
    HEALTH = b'{"status":"ok","uptime_secs":17,"hostname":"h"}'

    def against(self, line, after=b"", verb="health", stall=False, timeout="10"):
        """Answers CONNECT with `line` and the first frame with `after`."""
        with tempfile.TemporaryDirectory() as scratch:
            path = os.path.join(scratch, "s")
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(path)
            listener.listen(1)
            seen = []
            script = threading.Thread(target=self.play, args=(listener, line, after, stall, seen))
            script.start()
            try:
                done = host(path, "--timeout", timeout, verb)
            finally:
                script.join()
                listener.close()
            self.assertEqual(seen[0], b"CONNECT 1024\n")
            return done

    def play(self, listener, line, after, stall, seen):
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(DEADLINE)
            seen.append(sock.recv(4096))
            try:
                sock.sendall(line)
                if after:
                    (size,) = struct.unpack(">I", read(sock, 4))
                    seen.append(read(sock, size))
                    sock.sendall(after)
                if stall:
                    sock.recv(1)
            except (OSError, struct.error):
                pass

    def test_prints_the_reply_exactly_and_ignores_new_fields(self):
        payload = (b'{ "status":"ok",\n "hostname" : "h\\u00fc", "uptime_secs":17,'
                   b' "agent":{"protocol":2} }')
        done = self.against(self.OK, frame(payload))
        self.assertEqual((done.returncode, done.stdout), (0, payload + b"\n"))

    def test_an_error_reply_exits_1_with_any_other_fields(self):
        payload = b'{"status":"error","message":"no","code":"forbidden"}'
        done = self.against(self.OK, frame(payload))
        self.assertEqual((done.returncode, done.stdout), (1, payload + b"\n"))

    def test_any_number_after_ok_is_accepted(self):
        for number in [b"0", b"1024", b"18446744073709551615"]:
            done = self.against(b"OK " + number + b"\n", frame(self.HEALTH))
            self.assertEqual(done.returncode, 0, done)

    def test_any_other_line_is_broken(self):
        for line in [b"", b"OK", b"OK\n", b"OK \n", b"OK 1x\n", b"OK -1\n", b"OK  1\n", b"ok 1\n",
                     b"OK 1 \n", b"OK 1\r\n", "OK ٣\n".encode(), b"NO 1\n", b"OK " + b"1" * 29 + b"\n"]:
            done = self.against(line)
            self.assertEqual((done.returncode, done.stdout), (2, b""), line)

    def test_broken_replies_exit_2_and_print_nothing(self):
        for payload in [
            b"", b"{", b"[]", b'"ok"', b"{}", b"\xff", b'{"status":"maybe"}', b'{"status":"error"}',
            b'{"status":"error","message":7}', b'{"status":"ok"}',
            b'{"status":"ok","uptime_secs":17}',
            b'{"status":"ok","uptime_secs":"17","hostname":"h"}',
            b'{"status":"ok","uptime_secs":17.0,"hostname":"h"}',
            b'{"status":"ok","uptime_secs":-1,"hostname":"h"}',
            b'{"status":"ok","uptime_secs":true,"hostname":"h"}',
            b'{"status":"ok","uptime_secs":18446744073709551616,"hostname":"h"}',
            b'{"status":"ok","uptime_secs":17,"hostname":null}',
            b'{"status":"ok","uptime_secs":17,"hostname":"h","x":NaN}',
            b"[" * 200000,
        ]:
            done = self.against(self.OK, frame(payload))
            self.assertEqual((done.returncode, done.stdout), (2, b""), payload[:80])

    def test_broken_framing_exits_2(self):
        for after in [b"\0", frame(self.HEALTH)[:-1], struct.pack(">I", 2**20 + 1),
                      b"\xff\xff\xff\xff", frame(self.HEALTH) + b"x"]:
            self.assertEqual(self.against(self.OK, after).returncode, 2, after[:80])

    def test_a_frame_of_exactly_the_limit_is_read(self):
        padded = self.HEALTH + b" " * (2**20 - len(self.HEALTH))
        self.assertEqual(self.against(self.OK, frame(padded)).returncode, 0)

    def test_silence_ends_at_the_deadline(self):
        for line, after in [(b"", b""), (b"OK 1", b""), (self.OK, b"\0\0"),
                            (self.OK, frame(self.HEALTH)[:-1])]:
            started = time.monotonic()
            done = self.against(line, after, stall=True, timeout="0.4")
            self.assertEqual(done.returncode, 2)
            self.assertIn(b"out of time", done.stderr)
            self.assertLess(time.monotonic() - started, 5)

    def test_a_missing_socket_exits_2(self):
        self.assertEqual(host("/nonexistent/vm.vsock", "health").returncode, 2)


if __name__ == "__main__":
    unittest.main()
