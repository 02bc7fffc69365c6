"""The wire of docs/protocol.md for a program that talks to it by lines of JSON: commands on stdin, events on stdout.

    {"do": "dial", "id", "address", "secretHex", "hello"}   answered by {"id", "welcome"} or {"id", "refused"}
    {"do": "listen", "listenerName", "secretsHex"}          answered by {"listening": "127.0.0.1:port"}
    {"do": "decide", "id", "welcome" or "refuse"}           after the event {"id", "hello"}, a Hello that proved itself
    {"do": "send", "id", "frame"}, {"do": "end", "id"}      on a connection

Events of a connection are {"id", "frame"} and, last, {"id", "closed": true}. Frames are in the form of protobuf JSON.
"""

import base64
import itertools
import json
import os
import queue
import socket
import sys
import threading

from frames import Violation, decode, encode
from handshake import mac, secret_of

PREAMBLE = b"HWS1"
VERSION = 1
HANDSHAKE_LIMIT = 4096
OVERHEAD = 4194304
CAPABILITIES = ["CAPABILITY_GZIP"]


class Refused(Exception):
    """The other side refuses, or is to be refused; the code as protobuf JSON has it."""

    def __init__(self, code, by_other=False):
        super().__init__(code)
        self.code = f"ERROR_CODE_{code}" if not by_other else code
        self.by_other = by_other


class Gone(Exception):
    """The other side has closed."""


telling = threading.Lock()


def tell(event):
    with telling:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()


class Connection:
    def __init__(self, sock, name):
        self.sock = sock
        self.name = name
        self.limit = HANDSHAKE_LIMIT
        self.decisions = queue.Queue()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self, count):
        data = b""
        while len(data) < count:
            piece = self.sock.recv(min(count - len(data), 65536))
            if not piece:
                raise Gone()
            data += piece
        return data

    def receive(self):
        length = int.from_bytes(self.read(4), "big")
        if length > self.limit:
            raise Violation(f"a frame of {length} bytes")
        return decode(self.read(length))

    def expect(self, kind):
        frame = self.receive()
        if "refuse" in frame:
            raise Refused(frame["refuse"].get("code", "ERROR_CODE_UNSPECIFIED"), by_other=True)
        if kind not in frame:
            raise Violation(f"{next(iter(frame))} out of turn")
        return frame[kind]

    def send(self, frame):
        self.sock.sendall(encode(frame))

    def relay(self):
        """Tells of every frame until the end; answers pings."""
        while True:
            frame = self.receive()
            if "ping" in frame:
                self.send({"pong": frame["ping"]})
            else:
                tell({"id": self.name, "frame": frame})

    def end(self):
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def run(self, handshake):
        try:
            handshake()
            self.relay()
        except Violation as violation:
            self.refuse("ERROR_CODE_PROTOCOL_VIOLATION", str(violation))
        except Refused as refused:
            tell({"id": self.name, "refused": refused.code})
            if not refused.by_other:
                self.refuse(refused.code, "refused")
        except (Gone, OSError):
            pass
        self.end()
        tell({"id": self.name, "closed": True})

    def refuse(self, code, message):
        try:
            self.send({"refuse": {"code": code, "message": message}})
        except OSError:
            pass


connections = {}
# Of all listeners: the name of a connection that has ended may still be on its way to whoever made the next one.
accepted = itertools.count(1)


def dial(command):
    host, port = command["address"].rsplit(":", 1)
    connection = Connection(socket.create_connection((host, int(port))), command["id"])
    connections[command["id"]] = connection
    secret = bytes.fromhex(command["secretHex"])

    def handshake():
        connection.sock.sendall(PREAMBLE)
        challenge = connection.expect("challenge")
        if not challenge["minVersion"] <= VERSION <= challenge["maxVersion"]:
            raise Refused("UNSUPPORTED_VERSION")
        hello = {"version": VERSION} | command["hello"] | {"nonce": base64.b64encode(os.urandom(32)).decode()}
        connection.send({"hello": hello | {"mac": mac(secret, "hello", challenge, hello)}})
        welcome = connection.expect("welcome")
        if secret_of([secret], welcome["mac"], "welcome", challenge, hello) is None:
            raise Refused("UNAUTHENTICATED")
        connection.limit = OVERHEAD
        tell({"id": connection.name, "welcome": welcome})

    connection.run(handshake)


def accept(sock, name, listener_name, secrets):
    connection = Connection(sock, name)
    connections[name] = connection

    def handshake():
        if connection.read(len(PREAMBLE)) != PREAMBLE:
            raise Violation("another preamble")
        challenge = {
            "nonce": base64.b64encode(os.urandom(32)).decode(),
            "minVersion": VERSION,
            "maxVersion": VERSION,
            "capabilities": CAPABILITIES,
        }
        connection.send({"challenge": challenge})
        hello = connection.expect("hello")
        secret = secret_of(secrets, hello["mac"], "hello", challenge, hello)
        if secret is None:
            raise Refused("UNAUTHENTICATED")
        if hello["version"] != VERSION:
            raise Refused("UNSUPPORTED_VERSION")
        if hello["listenerName"] != listener_name:
            raise Refused("WRONG_PEER")
        tell({"id": name, "hello": hello})
        decision = connection.decisions.get()
        if "refuse" in decision:
            raise Refused(decision["refuse"]["code"].removeprefix("ERROR_CODE_"))
        welcome = decision["welcome"] | {"capabilities": CAPABILITIES, "mac": mac(secret, "welcome", challenge, hello)}
        connection.limit = int(welcome["maxMessageBytes"]) + OVERHEAD
        connection.send({"welcome": welcome})

    connection.run(handshake)


def listen(command):
    server = socket.create_server(("127.0.0.1", 0))
    secrets = [bytes.fromhex(secret) for secret in command["secretsHex"]]
    tell({"listening": f"127.0.0.1:{server.getsockname()[1]}"})
    while True:
        sock, _ = server.accept()
        start(accept, sock, f"accepted-{next(accepted)}", command["listenerName"], secrets)


def start(work, *arguments):
    threading.Thread(target=work, args=arguments, daemon=True).start()


def main():
    for line in sys.stdin:
        command = json.loads(line)
        connection = connections.get(command.get("id"))
        try:
            if command["do"] == "dial":
                start(dial, command)
            elif command["do"] == "listen":
                start(listen, command)
            elif command["do"] == "decide":
                connection.decisions.put(command)
            elif command["do"] == "send":
                connection.send(command["frame"])
            elif command["do"] == "end":
                connection.end()
        except OSError:
            # Its thread tells of the end.
            pass


if __name__ == "__main__":
    main()
