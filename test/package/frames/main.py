"""Does in Python what main.go does in Go."""

import sys

import protovalidate
from acme.v1.owner_pb2 import Order, owner
from google.protobuf.message import DecodeError
from hawser.errors.v1.errors_pb2 import ERROR_CODE_BUSY
from hawser.peer.v1.frames_pb2 import Frame


def outcome(line):
    frame = Frame()
    try:
        frame.ParseFromString(bytes.fromhex(line))
    except DecodeError:
        return "unreadable"
    violations = protovalidate.collect_violations(frame)
    return ",".join(violation.proto.rule_id for violation in violations) or "valid"


print(Order.DESCRIPTOR.fields_by_number[1].GetOptions().Extensions[owner], ERROR_CODE_BUSY)
for line in sys.stdin:
    print(outcome(line))
