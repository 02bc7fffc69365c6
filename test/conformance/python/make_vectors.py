"""Writes conversations.json, streams.json and payloads.json of test/vectors/, from docs/protocol.md alone.

    python3 test/conformance/python/make_vectors.py test/vectors
"""

import base64
import gzip
import json
import sys
from pathlib import Path

from frames import encode
from handshake import mac, mac_input

SECRET = bytes.fromhex("a62c9705470f019d1336ae81f60a9617be2f59242232a25c8953199f3540bf89")
OTHER_SECRET = bytes(range(100, 132))
PREAMBLE = b"HWS1"
EPOCH = 1763593200000
HANDSHAKE_LIMIT = 4096
CREDIT = 4194304


def b64(data):
    return base64.b64encode(data).decode()


def challenge(**changes):
    return {"nonce": b64(bytes(range(32))), "minVersion": 1, "maxVersion": 1, "capabilities": ["CAPABILITY_GZIP"]} | changes


def hello(to, secret=SECRET, tampered=None, **changes):
    fields = {
        "version": 1,
        "senderName": "billing-1",
        "sourceTopic": "billing",
        "listenerName": "orders-1",
        "channelId": 12,
        "epoch": str(EPOCH),
        "nonce": b64(bytes(255 - i for i in range(32))),
        "capabilities": ["CAPABILITY_GZIP"],
    } | changes
    return fields | {"mac": mac(secret, "hello", to, fields)} | (tampered or {})


def welcome(to, answered, cursor_epoch, cursor, backlog=0, secret=SECRET):
    fields = {
        "cursorEpoch": str(cursor_epoch),
        "cursor": str(cursor),
        "backlog": str(backlog),
        "credit": str(CREDIT),
        "maxMessageBytes": str(64 * 2**20),
        "capabilities": ["CAPABILITY_GZIP"],
        "mac": mac(secret, "welcome", to, answered),
    }
    return {name: value for name, value in fields.items() if value != "0"}


def ack(number, backlog=0, live=False, epoch=EPOCH, busy=False):
    fields = {"epoch": str(epoch), "number": str(number), "credit": str(CREDIT), "backlog": str(backlog)}
    fields = {name: value for name, value in fields.items() if value != "0"}
    return {"ack": fields | ({"busy": True} if busy else {}) | ({"live": True} if live else {})}


def batch(first, *payloads, delivery="AT_LEAST_ONCE", **more):
    numbered = {"firstNumber": str(first)} if delivery == "AT_LEAST_ONCE" else {}
    fields = {"epoch": str(EPOCH), "delivery": f"DELIVERY_{delivery}"} | numbered
    return {"batch": fields | {"topicId": 3, "payloads": [b64(payload) for payload in payloads]} | more}


class Conversation:
    def __init__(self, name, description):
        self.vector = {"name": name, "description": description, "secretHex": SECRET.hex(), "steps": []}

    def step(self, side, frame, why, **more):
        kind = next(iter(frame))
        self.vector["steps"].append(
            {"from": side, "frame": kind, "why": why} | more | {"frameHex": encode(frame).hex(), "json": frame}
        )
        return self

    def begin(self, first):
        self.vector["steps"].append({"from": "dialler", "why": "The preamble, in ASCII.", "hex": PREAMBLE.hex()})
        return self.step("listener", {"challenge": first}, "32 random bytes and the versions spoken here.")

    def greet(self, first, answered, why="Who calls whom, with proof."):
        covered = mac_input("hello", first, answered).hex()
        return self.step("dialler", {"hello": answered}, why, macInputHex=covered)

    def accept(self, first, answered, value, why):
        covered = mac_input("welcome", first, answered).hex()
        return self.step("listener", {"welcome": value}, why, macInputHex=covered)

    def refuse(self, side, code, number, why):
        """The words are the refuser's own; only the code is the protocol's."""
        self.vector["steps"].append({"from": side, "frame": "refuse", "why": why, "code": code, "wireCode": number})
        return self


def opened(name, description, cursor_epoch, cursor, backlog, why):
    first = challenge()
    answered = hello(first)
    value = welcome(first, answered, cursor_epoch, cursor, backlog)
    return Conversation(name, description).begin(first).greet(first, answered).accept(first, answered, value, why)


def conversations():
    yield (
        opened(
            "first-contact",
            "From the first byte to the last: a new channel, three messages in two batches, a ping, a farewell.",
            0,
            0,
            0,
            "Nothing was ever acknowledged, nothing is stored: the sender may go live at once.",
        )
        .step("dialler", {"goLive": {"epoch": str(EPOCH)}}, "Everything not known to be stored follows.")
        .step("dialler", batch(1, b"order 1", b"order 2"), "Messages 1 and 2; the sender need not wait for live.")
        .step("listener", ack(0, live=True, epoch=0), "A query begun after GoLive found nothing stored: live.")
        .step("listener", ack(2, live=True), "Both are handled and their cursor is committed.")
        .step(
            "dialler",
            batch(0, b"tick", delivery="AT_MOST_ONCE"),
            "A message without a number. No Ack will speak of it.",
        )
        .step(
            "dialler",
            batch(3, b"order 3", headers=[{"headers": [{"name": "trace", "value": "7f"}]}]),
            "Message 3, with a header.",
        )
        .step("listener", ack(3, live=True), "Message 3 is committed.")
        .step("dialler", {"ping": {"token": "81985529216486895"}}, "15 seconds without a received byte.")
        .step("listener", {"pong": {"token": "81985529216486895"}}, "At once, with the same token.")
        .step("dialler", {"goodbye": {}}, "Nothing more will be sent.")
        .step("listener", {"goodbye": {"epoch": str(EPOCH), "number": "3"}}, "The final cursor. Both sides close.")
        .vector
    )
    yield (
        opened(
            "after-a-break",
            "The sender comes back in the same epoch; it had stored 4 to 303 meanwhile, and more waits than is short.",
            EPOCH,
            3,
            300,
            "3 is committed, 300 rows are stored: too many to go live.",
        )
        .step("listener", ack(3, backlog=200), "The backlog has become short; the cursor has not moved yet.")
        .step("dialler", {"goLive": {"epoch": str(EPOCH)}}, "At most 256 rows are left: the sender goes live.")
        .step("dialler", batch(304, b"order 304"), "The first message that was not stored.")
        .step("listener", ack(100, backlog=0, busy=True), "A handler is slow: the sender should store.")
        .step("listener", ack(303, live=True), "All that was stored is committed; the channel is live.")
        .step("listener", ack(304, live=True), "And so is 304.")
        .step("listener", {"goodbye": {"epoch": str(EPOCH), "number": "304"}}, "The listener stops.")
        .vector
    )
    first = challenge()
    for name, description, answered, code, number in [
        ("another-secret", "The Hello's MAC was made with another secret.", hello(first, OTHER_SECRET), "unauthenticated", 16),
        (
            "another-name-than-proved",
            "A field was changed after the MAC was made.",
            hello(first, tampered={"senderName": "billing-2"}),
            "unauthenticated",
            16,
        ),
        (
            "welcomes-own-mac",
            "The MAC of the other direction proves nothing.",
            hello(first, tampered={"mac": mac(SECRET, "welcome", first, hello(first))}),
            "unauthenticated",
            16,
        ),
        ("version-not-offered", "The dialler chose a version that the Challenge did not offer.", hello(first, version=2), "unsupported_version", 18),
        ("another-listener", "The dialler means another peer.", hello(first, listenerName="orders-2"), "wrong_peer", 15),
        (
            "proof-before-version",
            "The MAC is checked first: a wrong version with a wrong proof is unauthenticated.",
            hello(first, OTHER_SECRET, version=2),
            "unauthenticated",
            16,
        ),
    ]:
        yield (
            Conversation(f"refused-{name}", description)
            .begin(first)
            .greet(first, answered, "Refused.")
            .refuse("listener", code, number, description)
            .vector
        )
    for name, lowest, highest in [("later", 2, 3), ("earlier-than-none", 4294967295, 4294967295)]:
        offered = challenge(minVersion=lowest, maxVersion=highest)
        yield (
            Conversation(f"refused-versions-{name}", f"The listener speaks versions {lowest} to {highest} only.")
            .begin(offered)
            .refuse("dialler", "unsupported_version", 18, "No version in common.")
            .vector
        )
    answered = hello(first)
    yield (
        Conversation("refused-listener-without-secret", "A listener that cannot prove itself is believed nothing.")
        .begin(first)
        .greet(first, answered)
        .accept(first, answered, welcome(first, answered, 0, 0, secret=OTHER_SECRET), "Made with another secret.")
        .refuse("dialler", "unauthenticated", 16, "The listener did not prove that it knows the secret.")
        .vector
    )


def streams():
    """What a receiver makes of a stream, however it is split: its frames, and how it ends."""
    ping, pong = encode({"ping": {"token": "7"}}), encode({"pong": {"token": "7"}})
    limit = HANDSHAKE_LIMIT

    def stream(name, description, data, kinds, end, preamble=False, max_frame=limit):
        fields = {"name": name, "description": description, "preamble": preamble, "maxFrameBytes": max_frame}
        return fields | {"hex": data.hex(), "frames": kinds, "end": end}

    yield stream("nothing", "No byte has come.", b"", [], "waits")
    yield stream("two-frames", "Frames follow one another without anything between them.", ping + pong, ["ping", "pong"], "waits")
    yield stream("preamble-and-frame", "A listener's side: the preamble, then frames.", PREAMBLE + ping, ["ping"], "waits", True)
    yield stream("preamble-cut-off", "Half of the preamble: the rest may follow.", PREAMBLE[:2], [], "waits", True)
    yield stream("preamble-wrong", "Refused at the first wrong byte.", b"HTTP", [], "refused", True)
    yield stream("preamble-later-version", "Another preamble is another protocol.", b"HWS2", [], "refused", True)
    yield stream("preamble-missing", "A frame where the preamble should be.", ping, [], "refused", True)
    yield stream("preamble-twice", "The second one is read as a length of 1,213,682,481 bytes.", PREAMBLE * 2, [], "refused", True)
    yield stream("prefix-cut-off", "Three bytes of a length.", ping[:3], [], "waits")
    yield stream("frame-cut-off", "A frame without its last byte: it may follow.", ping[:-1], [], "waits")
    yield stream("length-zero", "A frame of no bytes has no kind.", bytes(4), [], "refused")
    yield stream("length-at-limit", "4096 bytes are declared: they may follow.", limit.to_bytes(4, "big"), [], "waits")
    yield stream("length-above-limit", "4097 are refused by their four bytes alone.", (limit + 1).to_bytes(4, "big"), [], "refused")
    yield stream("length-greatest", "4 GiB less one byte, refused at once.", b"\xff" * 4, [], "refused")
    yield stream("length-above-limit-second", "After a good frame, too.", ping + (limit + 1).to_bytes(4, "big"), ["ping"], "refused")
    yield stream("nothing-after-a-refusal", "What follows a refused frame is not read.", ping + bytes(4) + pong, ["ping"], "refused")
    longest = encode({"refuse": {"code": "ERROR_CODE_BUSY", "message": "m" * 1000}})
    yield stream("another-limit", "The limit is the receiver's and changes with Welcome.", longest, ["refuse"], "waits", False, len(longest) - 4)
    yield stream("another-limit-by-one", "One byte less.", longest, [], "refused", False, len(longest) - 5)


def payloads():
    """What is made of a compressed payload, with the length that its sender declared."""
    words = b"hawser " * 40
    zipped = gzip.compress(words, mtime=0)
    # A zstd frame by hand (RFC 8878): magic, a single segment with its length in one byte, one last raw block.
    zstd = bytes.fromhex("28b52ffd") + bytes([0x20, 5]) + (5 << 3 | 1).to_bytes(3, "little") + b"hello"

    def payload(name, description, compression, data, declared, result):
        fields = {"name": name, "description": description, "compression": compression, "payloadHex": data.hex()}
        return fields | {"uncompressedBytes": declared} | ({"refused": True} if result is None else {"resultHex": result.hex()})

    yield payload("gzip", "The length fits.", "gzip", zipped, len(words), words)
    yield payload("gzip-empty", "A payload of no bytes.", "gzip", gzip.compress(b"", mtime=0), 0, b"")
    yield payload("gzip-stored", "Not compressed, in gzip's form.", "gzip", gzip.compress(words, 0, mtime=0), len(words), words)
    yield payload("gzip-declared-shorter", "It expands to one byte more than declared.", "gzip", zipped, len(words) - 1, None)
    yield payload("gzip-declared-longer", "It expands to one byte less.", "gzip", zipped, len(words) + 1, None)
    yield payload("gzip-declared-zero", "It expands, although nothing is declared.", "gzip", zipped, 0, None)
    yield payload("gzip-cut-off", "The last byte is missing.", "gzip", zipped[:-1], len(words), None)
    yield payload("gzip-checksum", "Its checksum is wrong.", "gzip", zipped[:-8] + bytes([zipped[-8] ^ 1]) + zipped[-7:], len(words), None)
    yield payload("gzip-of-nothing", "No bytes are no gzip.", "gzip", b"", 0, None)
    yield payload("gzip-plain-text", "Plain text is no gzip.", "gzip", words, len(words), None)
    yield payload("gzip-bomb", "1 MiB of zeros declared as 1,000 bytes: expansion stops there.", "gzip", gzip.compress(bytes(2**20), 9, mtime=0), 1000, None)
    yield payload("zstd", "For those who read it.", "zstd", zstd, 5, b"hello")
    yield payload("zstd-declared-longer", "It expands to one byte less.", "zstd", zstd, 6, None)


def json_text(value, indent=0):
    """JSON with everything on one line that fits there."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or not value:
        return line
    line = f"{{ {line[1:-1]} }}" if isinstance(value, dict) else line
    if indent + len(line) < 120:
        return line
    begin, end = "{}" if isinstance(value, dict) else "[]"
    names = [f"{json.dumps(name)}: " for name in value] if isinstance(value, dict) else [""] * len(value)
    inner = value.values() if isinstance(value, dict) else value
    lines = [f"{' ' * (indent + 2)}{name}{json_text(one, indent + 2)}" for name, one in zip(names, inner)]
    return "\n".join([begin, ",\n".join(lines), " " * indent + end])


def write(directory, name, description, vectors):
    text = json_text({"description": description, "vectors": list(vectors)})
    (Path(directory) / name).write_text(text + "\n")


if __name__ == "__main__":
    to = sys.argv[1]
    write(
        to,
        "conversations.json",
        "Whole conversations, byte by byte. A step is what one side sends; of a Refuse only the code is fixed. "
        "macInputHex is what the frame's MAC covers.",
        conversations(),
    )
    write(
        to,
        "streams.json",
        "Streams of one direction: the frames in them, and whether the receiver then waits for more or refuses with "
        "protocol_violation (17). The result is the same however the bytes are split.",
        streams(),
    )
    write(
        to,
        "payloads.json",
        "Compressed payloads with the length that was declared: what they expand to, or that they are damaged.",
        payloads(),
    )
