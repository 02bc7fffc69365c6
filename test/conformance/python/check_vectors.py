"""Checks frames.py and handshake.py against test/vectors/, and prints how many vectors hold.

    python3 test/conformance/python/check_vectors.py test/vectors
"""

import base64
import gzip
import json
import sys
import zlib
from pathlib import Path

from frames import Violation, decode, encode
from handshake import mac, mac_input

directory = Path(sys.argv[1])


def vectors(name):
    return json.loads((directory / name).read_text())["vectors"]


def check(holds, *what):
    if not holds:
        raise SystemExit(f"does not hold: {' '.join(map(str, what))}")


def refuses(work):
    try:
        work()
    except Violation:
        return True
    return False


def receive(vector):
    """The frames of a stream, and how it ends."""
    data, kinds = bytes.fromhex(vector["hex"]), []
    if vector["preamble"]:
        come = data[:4]
        if come != b"HWS1"[: len(come)]:
            return kinds, "refused"
        data = data[4:]
    while len(data) >= 4:
        length = int.from_bytes(data[:4], "big")
        if length > vector["maxFrameBytes"]:
            return kinds, "refused"
        if len(data) < 4 + length:
            break
        try:
            kinds.append(next(iter(decode(data[4 : 4 + length]))))
        except Violation:
            return kinds, "refused"
        data = data[4 + length :]
    return kinds, "waits"


def expand(data, declared):
    """gunzip that stops at the declared length."""
    reader = zlib.decompressobj(wbits=31)
    try:
        out = reader.decompress(data, declared + 1)
        more = reader.decompress(reader.unconsumed_tail, 1) if len(out) <= declared else b""
    except zlib.error:
        return None
    return out if reader.eof and not more and len(out) == declared else None


def check_conversation(vector):
    secret = bytes.fromhex(vector["secretHex"])
    challenge = hello = None
    for step in vector["steps"]:
        if "frameHex" not in step:
            continue
        frame = step["json"]
        check(encode(frame).hex() == step["frameHex"], vector["name"], step["why"])
        check(decode(bytes.fromhex(step["frameHex"])[4:]) == frame, vector["name"], step["why"])
        challenge = frame.get("challenge", challenge)
        hello = frame.get("hello", hello)
        if "macInputHex" in step:
            check(mac_input(step["frame"], challenge, hello).hex() == step["macInputHex"], vector["name"], step["frame"])
    proved = mac(secret, "hello", challenge, hello) == hello["mac"] if hello else None
    refused = [step["code"] for step in vector["steps"] if "code" in step]
    check((proved is False) == (refused == ["unauthenticated"] and "without-secret" not in vector["name"]), vector["name"])


def main():
    count = 0
    good = vectors("frames.json") + vectors("long-frames.json")
    for vector in good + vectors("accepted.json"):
        frame = bytes.fromhex(vector["frameHex"])
        try:
            check(decode(frame[4:]) == vector["json"], vector["name"])
        except Violation as violation:
            check(False, vector["name"], "in frames.py:", violation)
        count += 1
    for vector in good:
        check(encode(vector["json"]).hex() == vector["frameHex"], vector["name"])
    for vector in vectors("refused.json"):
        check(refuses(lambda: decode(bytes.fromhex(vector["frameHex"])[4:])), vector["name"])
        count += 1
    for vector in vectors("streams.json"):
        check(receive(vector) == (vector["frames"], vector["end"]), vector["name"])
        count += 1
    for vector in vectors("payloads.json"):
        if vector["compression"] == "gzip":
            result = expand(bytes.fromhex(vector["payloadHex"]), vector["uncompressedBytes"])
            check((None if result is None else result.hex()) == vector.get("resultHex"), vector["name"])
            count += 1
    for vector in vectors("handshake.json"):
        nonces = [base64.b64encode(bytes.fromhex(vector[f"{side}NonceHex"])).decode() for side in ("challenge", "hello")]
        for direction in ("hello", "welcome"):
            covered = ({"nonce": nonces[0]}, vector | {"nonce": nonces[1]}, bytes.fromhex(vector["exporterHex"]))
            proof = base64.b64decode(mac(bytes.fromhex(vector["secretHex"]), direction, *covered)).hex()
            check(mac_input(direction, *covered).hex() == vector[f"{direction}MacInputHex"], vector["name"], direction)
            check(proof == vector[f"{direction}MacHex"], vector["name"], direction)
        count += 1
    for vector in vectors("conversations.json"):
        check_conversation(vector)
        count += 1
    print(f"{count} vectors hold")


main()
