"""The frames of docs/protocol.md in plain Python: encode, decode, and every rule that a decoder checks.

Written from docs/protocol.md and proto/wire/hawser/peer/v1/frames.proto alone. A frame is a dict in the form of protobuf
JSON, {"ping": {"token": "7"}}: bytes in base64, 64-bit numbers as text, enums by name, defaults left out.
"""

import base64
import re

MAX_NUMBER = 2**53 - 1
MAX_MESSAGE_BYTES = 2**30

CAPABILITIES = {1: "CAPABILITY_GZIP", 2: "CAPABILITY_ZSTD", 3: "CAPABILITY_REQUESTS"}
DELIVERIES = {1: "DELIVERY_AT_LEAST_ONCE", 2: "DELIVERY_AT_MOST_ONCE"}
COMPRESSIONS = {1: "COMPRESSION_GZIP", 2: "COMPRESSION_ZSTD"}
ERRORS = [
    "UNSPECIFIED", "NOT_RUNNING", "ALREADY_RUNNING", "SELF_TOPIC", "INTERNAL_TOPIC", "NO_LISTENER", "BIND_FAILED",
    "STORE_FAILED", "INVALID_ARGUMENT", "CLEAR_WHILE_RUNNING", "STARTUP_FAILED", "BUSY", "NAME_IN_USE", "NAME_LOST",
    "FENCED", "WRONG_PEER", "UNAUTHENTICATED", "PROTOCOL_VIOLATION", "UNSUPPORTED_VERSION", "HANDSHAKE_TIMEOUT",
    "CONNECTION_LOST", "PLAINTEXT_REFUSED", "SCHEMA_TOO_NEW", "NOT_SUPPORTED", "HANDLER_FAILED", "UNSUBSCRIBED",
    "ABORTED", "DEV_SERVER_FAILED", "INTERNAL",
]
ERROR_CODES = {number: f"ERROR_CODE_{name}" for number, name in enumerate(ERRORS) if number > 0}


class Violation(Exception):
    """What the protocol refuses with protocol_violation."""


def need(holds, rule):
    if not holds:
        raise Violation(rule)


# ---- the messages: field number -> (name, type, rule) ----

NAME = re.compile("[^:\u0000-\u001f\u007f]+")
HEADER_NAME = re.compile("[!-9;-~]+")
HEADER_VALUE = re.compile("[^\u0000-\u0008\u000a-\u001f\u007f]*")


def number_from(least, most=MAX_NUMBER):
    return lambda value: least <= value <= most


def bytes_exactly(count):
    return lambda value: len(value) == count


def text(least, most, pattern=None):
    def holds(value):
        return least <= len(value.encode()) <= most and (pattern is None or pattern.fullmatch(value) is not None)

    return holds


def items_at_most(count):
    return lambda value: len(value) <= count


HEADER = {
    1: ("name", "string", text(1, 255, HEADER_NAME)),
    2: ("value", "string", text(0, 8192, HEADER_VALUE)),
}
PAYLOAD_HEADERS = {
    1: ("index", "uint32", None),
    2: ("headers", [HEADER], items_at_most(256)),
}
PAYLOAD_COMPRESSION = {
    1: ("index", "uint32", None),
    2: ("compression", COMPRESSIONS, number_from(1, 2)),
    3: ("uncompressedBytes", "uint64", number_from(0, MAX_MESSAGE_BYTES)),
}
CAPABILITY_LIST = [CAPABILITIES]
CHALLENGE = {
    1: ("nonce", "bytes", bytes_exactly(32)),
    2: ("minVersion", "uint32", number_from(1)),
    3: ("maxVersion", "uint32", number_from(1)),
    4: ("capabilities", CAPABILITY_LIST, items_at_most(32)),
}
HELLO = {
    1: ("version", "uint32", number_from(1)),
    2: ("senderName", "string", text(1, 255, NAME)),
    3: ("sourceTopic", "string", text(1, 255, NAME)),
    4: ("listenerName", "string", text(1, 255, NAME)),
    5: ("channelId", "int32", number_from(1)),
    6: ("epoch", "uint64", number_from(1)),
    7: ("nonce", "bytes", bytes_exactly(32)),
    8: ("capabilities", CAPABILITY_LIST, items_at_most(32)),
    9: ("mac", "bytes", bytes_exactly(32)),
}
WELCOME = {
    1: ("cursorEpoch", "uint64", number_from(0)),
    2: ("cursor", "uint64", number_from(0)),
    3: ("backlog", "uint64", number_from(0)),
    4: ("credit", "uint64", number_from(1)),
    5: ("maxMessageBytes", "uint64", number_from(1, MAX_MESSAGE_BYTES)),
    6: ("capabilities", CAPABILITY_LIST, items_at_most(32)),
    7: ("mac", "bytes", bytes_exactly(32)),
    8: ("queued", "uint64", number_from(0)),
}
REFUSE = {
    1: ("code", ERROR_CODES, None),
    2: ("message", "string", text(0, 1024)),
}
BATCH = {
    1: ("epoch", "uint64", number_from(1)),
    2: ("delivery", DELIVERIES, number_from(1, 2)),
    3: ("firstNumber", "uint64", number_from(0)),
    4: ("topicId", "int32", number_from(1)),
    5: ("payloads", ["bytes"], items_at_most(65536)),
    6: ("compressions", [PAYLOAD_COMPRESSION], items_at_most(65536)),
    7: ("headers", [PAYLOAD_HEADERS], items_at_most(65536)),
}
ACK = {
    1: ("epoch", "uint64", number_from(0)),
    2: ("number", "uint64", number_from(0)),
    3: ("credit", "uint64", number_from(1)),
    4: ("backlog", "uint64", number_from(0)),
    5: ("busy", "bool", None),
    6: ("live", "bool", None),
    7: ("queued", "uint64", number_from(0)),
}
GO_LIVE = {1: ("epoch", "uint64", number_from(1))}
TOKEN = {1: ("token", "uint64", None)}
GOODBYE = {
    1: ("epoch", "uint64", number_from(0)),
    2: ("number", "uint64", number_from(0)),
}
REQUEST = {
    1: ("id", "uint64", number_from(1)),
    2: ("topicId", "int32", number_from(1)),
    3: ("timeoutMs", "uint32", number_from(1, 2**31 - 1)),
    4: ("maxAnswerBytes", "uint64", number_from(1, MAX_MESSAGE_BYTES)),
    5: ("payload", "bytes", None),
    6: ("headers", [HEADER], items_at_most(256)),
}
ANSWER = {
    1: ("id", "uint64", number_from(1)),
    2: ("code", ERROR_CODES, None),
    3: ("message", "string", text(0, 1024)),
    4: ("begun", "bool", None),
    5: ("payload", "bytes", None),
    6: ("headers", [HEADER], items_at_most(256)),
}
CANCEL = {1: ("id", "uint64", number_from(1))}
KINDS = {
    1: ("challenge", CHALLENGE),
    2: ("hello", HELLO),
    3: ("welcome", WELCOME),
    4: ("refuse", REFUSE),
    5: ("batch", BATCH),
    6: ("ack", ACK),
    7: ("goLive", GO_LIVE),
    8: ("ping", TOKEN),
    9: ("pong", TOKEN),
    10: ("goodbye", GOODBYE),
    11: ("request", REQUEST),
    12: ("answer", ANSWER),
    13: ("cancel", CANCEL),
}


# ---- decoding ----


class Reader:
    def __init__(self, data):
        self.data = data
        self.at = 0

    def more(self):
        return self.at < len(self.data)

    def take(self, count):
        need(count <= len(self.data) - self.at, "a length leaves its message")
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self):
        value = 0
        for place in range(10):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                return value & (2**64 - 1)
        raise Violation("a varint of more than ten bytes")

    def tag(self):
        tag = self.varint()
        number, wire = tag >> 3, tag & 7
        need(1 <= number < 2**29 and wire <= 5, "a tag that does not exist")
        return number, wire

    def skip(self, number, wire):
        if wire == 0:
            self.varint()
        elif wire == 1:
            self.take(8)
        elif wire == 2:
            self.take(self.varint())
        elif wire == 5:
            self.take(4)
        elif wire == 3:
            while True:
                inner, inner_wire = self.tag()
                if inner_wire == 4:
                    need(inner == number, "the end of another group")
                    return
                self.skip(inner, inner_wire)
        else:
            raise Violation("the end of a group that never began")


def is_varint(kind):
    """Numbers, bools and enums; what is repeated of them comes packed."""
    return kind in ("uint32", "int32", "uint64", "bool") or (isinstance(kind, dict) and kind in ENUMS)


ENUMS = (CAPABILITIES, DELIVERIES, COMPRESSIONS, ERROR_CODES)


def number_of(kind, varint):
    if kind == "bool":
        return varint != 0
    if kind == "uint64":
        return varint
    low = varint & (2**32 - 1)
    return low if kind == "uint32" or low < 2**31 else low - 2**32


def value_of(kind, data):
    if kind == "bytes":
        return data
    if kind == "string":
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise Violation("a string that is not UTF-8") from None
    return read_message(data, kind)


def read_message(data, fields):
    """The fields that came, by name: numbers, bytes, text, lists and dicts; every field is there."""
    found = {name: default_of(kind) for name, kind, _ in fields.values()}
    reader = Reader(data)
    while reader.more():
        number, wire = reader.tag()
        name, kind, _ = fields.get(number, (None, None, None))
        one = kind[0] if isinstance(kind, list) else kind
        if name is not None and wire == 0 and is_varint(one):
            value = number_of(one, reader.varint())
            found[name] = found[name] + [value] if isinstance(kind, list) else value
        elif name is not None and wire == 2 and isinstance(kind, list) and is_varint(one):
            packed = Reader(reader.take(reader.varint()))
            while packed.more():
                found[name].append(number_of(one, packed.varint()))
        elif name is not None and wire == 2 and not is_varint(one):
            value = value_of(one, reader.take(reader.varint()))
            if isinstance(kind, list):
                found[name].append(value)
            else:
                found[name] = value
        else:
            reader.skip(number, wire)
    check_rules(found, fields)
    return found


def default_of(kind):
    if isinstance(kind, list):
        return []
    return {"bytes": b"", "string": "", "bool": False}.get(kind, 0) if isinstance(kind, str) else 0


def check_rules(found, fields):
    for name, _, holds in fields.values():
        need(holds is None or holds(found[name]), f"{name} breaks its rule")


def check_batch(batch):
    count = len(batch["payloads"])
    need(count > 0, "a Batch without a payload")
    if batch["delivery"] == 2:
        need(batch["firstNumber"] == 0, "an at-most-once Batch with a number")
    else:
        need(batch["firstNumber"] >= 1, "an at-least-once Batch without a number")
        need(batch["firstNumber"] + count - 1 <= MAX_NUMBER, "a number beyond 2^53 - 1")
    for name in ("compressions", "headers"):
        indexes = [entry["index"] for entry in batch[name]]
        need(indexes == sorted(set(indexes)), f"the indexes of {name} do not ascend")
        need(all(index < count for index in indexes), f"an index of {name} without a payload")


def decode(frame):
    """The frame behind a length prefix, as protobuf JSON. Raises Violation for what the protocol refuses."""
    reader = Reader(frame)
    kinds = []
    while reader.more():
        number, wire = reader.tag()
        if wire == 2 and number in KINDS:
            kinds.append((number, reader.take(reader.varint())))
        else:
            reader.skip(number, wire)
    need(len(kinds) == 1, f"a frame of {len(kinds)} kinds")
    number, body = kinds[0]
    name, fields = KINDS[number]
    found = read_message(body, fields)
    if name == "batch":
        check_batch(found)
    return {name: json_of(found, fields)}


def json_of(found, fields):
    json = {}
    for name, kind, _ in fields.values():
        value = found[name]
        if value == default_of(kind):
            continue
        if isinstance(kind, list):
            values = [json_value(kind[0], one) for one in value]
            # Enum numbers of a newer version are passed over.
            json[name] = [one for one in values if not (kind is CAPABILITY_LIST and isinstance(one, int))]
        else:
            json[name] = json_value(kind, value)
    return {name: value for name, value in json.items() if value != []}


def json_value(kind, value):
    if kind == "bytes":
        return base64.b64encode(value).decode()
    if kind == "uint64":
        return str(value)
    if isinstance(kind, dict):
        return kind.get(value, value) if kind in ENUMS else json_of(value, kind)
    return value


# ---- encoding: fields in order, defaults left out, shortest varints ----


def varint(value):
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def delimited(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def write_message(json, fields):
    out = b""
    for number in sorted(fields):
        name, kind, _ = fields[number]
        if name not in json:
            continue
        value = json[name]
        if not isinstance(kind, list):
            raw = raw_of(kind, value)
            if raw == default_of(kind) and not (isinstance(kind, dict) and kind not in ENUMS):
                continue
            out += varint(number << 3) + varint(int(raw)) if is_varint(kind) else delimited(number, data_of(kind, raw))
        elif is_varint(kind[0]):
            if value:
                out += delimited(number, b"".join(varint(int(raw_of(kind[0], one))) for one in value))
        else:
            out += b"".join(delimited(number, data_of(kind[0], raw_of(kind[0], one))) for one in value)
    return out


def raw_of(kind, value):
    if kind == "bytes":
        return base64.b64decode(value)
    if kind == "uint64":
        return int(value)
    if isinstance(kind, dict) and kind in ENUMS:
        return next((number for number, name in kind.items() if name == value), value)
    return value


def data_of(kind, raw):
    if kind == "string":
        return raw.encode()
    return raw if kind == "bytes" else write_message(raw, kind)


def encode(frame):
    """The bytes of a frame, with its length prefix."""
    ((name, value),) = frame.items()
    number, fields = next((number, fields) for number, (kind, fields) in KINDS.items() if kind == name)
    body = delimited(number, write_message(value, fields))
    return len(body).to_bytes(4, "big") + body
