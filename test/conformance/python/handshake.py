"""The MACs of the handshake, as docs/protocol.md says."""

import base64
import hashlib
import hmac

LABELS = {"hello": b"hawser/1 hello", "welcome": b"hawser/1 welcome"}


def mac_input(direction, challenge, hello, exporter=b""):
    """What the MAC of a direction covers. Challenge and Hello are dicts in the form of protobuf JSON."""
    parts = [
        LABELS[direction],
        base64.b64decode(challenge["nonce"]),
        base64.b64decode(hello["nonce"]),
        hello["senderName"].encode(),
        hello["sourceTopic"].encode(),
        hello["listenerName"].encode(),
        hello["channelId"].to_bytes(4, "big"),
        int(hello["epoch"]).to_bytes(8, "big"),
        hello["version"].to_bytes(4, "big"),
        exporter,
    ]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def mac(secret, direction, challenge, hello, exporter=b""):
    """The 32 bytes that Hello or Welcome carries, in base64."""
    return base64.b64encode(
        hmac.new(secret, mac_input(direction, challenge, hello, exporter), hashlib.sha256).digest()
    ).decode()


def secret_of(secrets, proof, direction, challenge, hello, exporter=b""):
    """The secret with which the proof was made; None if it was none of them."""
    for secret in secrets:
        if hmac.compare_digest(proof, mac(secret, direction, challenge, hello, exporter)):
            return secret
    return None
