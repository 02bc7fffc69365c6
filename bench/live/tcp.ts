/**
 * The baseline `tcp`: what one would write by hand with a socket and nothing else. Messages with a length before
 * each are gathered in blocks as large as our batches; long ones are written without being copied. The receiver makes a
 * view of each message, counts it, and acknowledges the total at the end of a run.
 */

import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { senderDefaults } from "../../src/jobs-and-peers/channel/effects.js";
import { writeHighWaterBytes } from "../../src/jobs-and-peers/transport/socket-writer.js";
import { BenchFailure } from "../suite.js";
import type { ReceivingHalf, SendingHalf, Tally } from "./ways.js";

/** The u32 big-endian length before each message. */
const lengthBytes = 4;

/** A block of messages that leaves in one write. */
const blockBytes = senderDefaults.batchTargetBytes;

/** Bytes that may wait for the socket, as in our connections. */
const highWaterBytes = writeHighWaterBytes;

/** Payloads from here on are written as they are: copying them would cost more than one more piece for the socket. */
const referencedBytes = 16 * 1024;

/** Ends a run and asks for the total. */
const endOfRun = Buffer.alloc(lengthBytes);

/** Listens on a free port. */
export async function receiveByTcp(tally: Tally): Promise<ReceivingHalf & { readonly port: number }> {
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => socket.destroy());
    let total = 0;
    const reader = new LengthPrefixedReader(
      (message) => {
        total += 1;
        tally.count(message.length);
      },
      () => {
        const answer = Buffer.alloc(8);
        answer.writeBigUInt64BE(BigInt(total));
        socket.write(answer);
        total = 0;
      },
    );
    // Views of a Buffer are Buffers and cost more.
    socket.on("data", ({ buffer, byteOffset, length }) => reader.read(new Uint8Array(buffer, byteOffset, length)));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  return {
    port,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

/** Connects to the other process. */
export async function sendByTcp(port: number): Promise<SendingHalf> {
  // The types of `connect` do not know that it hands stream options on.
  const options = { port, host: "127.0.0.1", noDelay: true, writableHighWaterMark: highWaterBytes };
  const socket = connect(options);
  await once(socket, "connect");
  socket.on("error", () => socket.destroy());
  return {
    send: async (payload, count) => {
      const acknowledged = once(socket, "data") as Promise<[Buffer]>;
      const write = payload.length < referencedBytes ? writeCopies : writeReferences;
      await write(socket, payload, count);
      socket.write(endOfRun);
      const [answer] = await acknowledged;
      const total = Number(answer.readBigUInt64BE());
      if (total !== count) throw new BenchFailure(`tcp: ${total} of ${count} messages were acknowledged`);
      return {};
    },
    close: async () => void socket.destroy(),
  };
}

async function writeCopies(socket: Socket, payload: Uint8Array, count: number): Promise<void> {
  const size = lengthBytes + payload.length;
  const perBlock = Math.floor(blockBytes / size);
  for (let left = count; left > 0; ) {
    const now = Math.min(left, perBlock);
    left -= now;
    const block = Buffer.allocUnsafeSlow(now * size);
    for (let i = 0, at = 0; i < now; i++, at += size) {
      block.writeUInt32BE(payload.length, at);
      block.set(payload, at + lengthBytes);
    }
    if (!socket.write(block)) await once(socket, "drain");
  }
}

async function writeReferences(socket: Socket, payload: Uint8Array, count: number): Promise<void> {
  const head = Buffer.alloc(lengthBytes);
  head.writeUInt32BE(payload.length);
  for (let left = count; left > 0; left--) {
    socket.cork();
    socket.write(head);
    const more = socket.write(payload);
    socket.uncork();
    if (!more) await once(socket, "drain");
  }
}

/**
 * Takes messages out of chunks that begin and end anywhere, as views where a message lies within its chunk. A length of 0
 * stands for the end of a run.
 */
class LengthPrefixedReader {
  /** A message that began in an earlier chunk, and how much of it has come. */
  #message: Uint8Array | undefined;
  #filled = 0;
  /** A length that began in an earlier chunk. */
  readonly #head = new Uint8Array(lengthBytes);
  #headFilled = 0;

  readonly #onMessage: (message: Uint8Array) => void;
  readonly #onEnd: () => void;

  constructor(onMessage: (message: Uint8Array) => void, onEnd: () => void) {
    this.#onMessage = onMessage;
    this.#onEnd = onEnd;
  }

  read(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length; ) {
      if (this.#message !== undefined) {
        at = this.#fill(this.#message, chunk, at);
      } else if (this.#headFilled > 0 || chunk.length - at < lengthBytes) {
        this.#head[this.#headFilled++] = chunk[at++]!;
        if (this.#headFilled < lengthBytes) continue;
        this.#headFilled = 0;
        at = this.#begin(lengthAt(this.#head, 0), chunk, at);
      } else {
        at = this.#begin(lengthAt(chunk, at), chunk, at + lengthBytes);
      }
    }
  }

  /** @returns where the next message begins, or the end of the chunk */
  #begin(length: number, chunk: Uint8Array, at: number): number {
    const end = at + length;
    if (length === 0) {
      this.#onEnd();
    } else if (end <= chunk.length) {
      this.#onMessage(chunk.subarray(at, end));
    } else {
      // Every byte of it is written before it is read.
      this.#message = new Uint8Array(Buffer.allocUnsafeSlow(length).buffer);
      this.#filled = 0;
      return this.#fill(this.#message, chunk, at);
    }
    return end;
  }

  #fill(message: Uint8Array, chunk: Uint8Array, at: number): number {
    const end = Math.min(chunk.length, at + message.length - this.#filled);
    message.set(chunk.subarray(at, end), this.#filled);
    this.#filled += end - at;
    if (this.#filled === message.length) {
      this.#message = undefined;
      this.#onMessage(message);
    }
    return end;
  }
}

function lengthAt(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}
