#!/usr/bin/env python3
"""Checks the hex examples in docs/PROTOCOL.md: their lengths, and that the base peers accept them."""

import json
import os
import re
import struct
import unittest

import base_agent
import base_host

HERE = os.path.dirname(os.path.abspath(__file__))
PAGE = os.path.join(HERE, "..", "..", "docs", "PROTOCOL.md")
EXAMPLE = re.compile(r"^(\d+) bytes: 4 \+ (\d+) \(0x([0-9a-f]+)\)\n\n```hex\n(.*?)```", re.S | re.M)
LINE = re.compile(r"([0-9a-f]{4})  ([0-9a-f ]+?) +\|(.{1,16})\|")


def examples():
    """Yields (numbers from the sentence above, bytes) for every hex dump."""
    with open(PAGE, encoding="utf-8") as file:
        page = file.read()
    assert page.count("```hex") == len(EXAMPLE.findall(page)), "a hex dump lacks its sentence"
    for total, length, length_hex, dump in EXAMPLE.findall(page):
        yield (int(total), int(length), int(length_hex, 16)), undump(dump)


def undump(dump):
    data = b""
    for line in dump.splitlines():
        offset, digits, text = LINE.fullmatch(line).groups()
        piece = bytes.fromhex(digits)
        assert int(offset, 16) == len(data), line
        assert text == "".join(chr(b) if 32 <= b < 127 else "." for b in piece), line
        data += piece
    return data


class ProtocolPage(unittest.TestCase):
    def test_lengths_are_right_in_the_bytes_and_in_the_text(self):
        for stated, data in examples():
            (length,) = struct.unpack(">I", data[:4])
            self.assertEqual(stated, (len(data), length, length), data)
            self.assertEqual(len(data), 4 + length)

    def test_all_base_requests_and_replies_are_documented_and_accepted(self):
        asked, answered, errors = [], [], 0
        for _, data in examples():
            message = json.loads(data[4:])
            if message.get("type") == "restore" or "generation" in message:
                continue  # added by protocol 2, and never sent to a base agent
            if "vmm_token" in message:
                self.assertIn(message["type"], base_agent.REQUESTS)
                continue  # a base agent ignores the token
            if "type" in message:
                asked.append(message["type"])
                self.assertIn(message["type"], base_agent.REQUESTS)
            else:
                # A reply follows its request; only the health reply of protocol 2 stands alone.
                request = "health_check" if "agent" in message else asked[-1]
                base_host.parse_reply(data[4:], request)
                if message["status"] == "error":
                    errors += 1
                elif "agent" not in message:
                    answered.append(asked[-1])
        self.assertEqual(sorted(asked), sorted(base_host.REPLY_FIELDS))
        self.assertEqual(answered, asked)
        self.assertEqual(errors, 2)

    def test_the_pages_json_is_json(self):
        with open(PAGE, encoding="utf-8") as file:
            for text in re.findall(r'`(\{"[^`]*\})`', file.read()):
                json.loads(text)


if __name__ == "__main__":
    unittest.main()
