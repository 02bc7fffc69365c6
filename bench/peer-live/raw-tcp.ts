/**
 * The baseline `tcp`: what somebody would write by hand with a socket and nothing else. Messages with a u32 length before
 * each are gathered in blocks as large as our batches; long ones are written without being copied. The receiver makes a view of each
 * message, counts it, and acknowledges the total at the end of a run.
 */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import type { Tally } from "./tally.js";
import type { ReceivingHalf, SendingHalf } from "./ways.js";

const lengthBytes = 4;

/** A block of messages that leaves in one write. */
const blockBytes = protocolConstants.batchTargetBytes;

/** Payloads from here on are written as they are: copying them would cost more than one more piece for the socket. */
const referencedBytes = 16 * 1024;

/** A length of 0 ends a run and asks for the total. */
const endOfRun = Buffer.alloc(lengthBytes);

/** Listens on a free port. */
export async function receiveByTcp(tally: Tally): Promise<ReceivingHalf & { readonly port: number }> {
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => socket.destroy());
    const reader = new Reader(tally, (total) => {
      const answer = Buffer.alloc(8);
      answer.writeBigUInt64BE(BigInt(total));
      socket.write(answer);
    });
    socket.on("data", (chunk) => reader.read(chunk));
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

/** Takes messages out of chunks that begin and end anywhere. */
class Reader {
  private rest: Uint8Array = new Uint8Array();
  private total = 0;

  constructor(
    private readonly tally: Tally,
    private readonly acknowledge: (total: number) => void,
  ) {}

  read(chunk: Buffer): void {
    const bytes = this.rest.length === 0 ? plain(chunk) : joined(this.rest, chunk);
    let at = 0;
    while (at + lengthBytes <= bytes.length) {
      const length = ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
      const begin = at + lengthBytes;
      if (length === 0) {
        this.acknowledge(this.total);
        this.total = 0;
      } else {
        if (begin + length > bytes.length) break;
        this.take(bytes.subarray(begin, begin + length));
      }
      at = begin + length;
    }
    this.rest = at === bytes.length ? bytes.subarray(0, 0) : bytes.subarray(at);
  }

  private take(payload: Uint8Array): void {
    this.total += 1;
    this.tally.count(payload.length);
  }
}

/** Connects to the other process. */
export async function sendByTcp(port: number): Promise<SendingHalf> {
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  await once(socket, "connect");
  socket.on("error", () => socket.destroy());
  return {
    send: async (_way, payload, count) => {
      const acknowledged = once(socket, "data") as Promise<[Buffer]>;
      if (payload.length >= referencedBytes) await writeReferenced(socket, payload, count);
      else await writeCopied(socket, payload, count);
      socket.write(endOfRun);
      const [answer] = await acknowledged;
      const total = Number(answer.readBigUInt64BE());
      if (total !== count) throw new Error(`tcp: ${total} of ${count} messages were acknowledged`);
      return {};
    },
    close: async () => void socket.destroy(),
  };
}

async function writeCopied(socket: Socket, payload: Uint8Array, count: number): Promise<void> {
  const size = lengthBytes + payload.length;
  const perBlock = Math.max(1, Math.floor(blockBytes / size));
  for (let left = count; left > 0; ) {
    const now = Math.min(left, perBlock);
    left -= now;
    const block = Buffer.allocUnsafe(now * size);
    for (let i = 0, at = 0; i < now; i++, at += size) {
      block.writeUInt32BE(payload.length, at);
      block.set(payload, at + lengthBytes);
    }
    if (!socket.write(block)) await once(socket, "drain");
  }
}

async function writeReferenced(socket: Socket, payload: Uint8Array, count: number): Promise<void> {
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

/** Views of a Buffer are Buffers and cost more. */
function plain(chunk: Buffer): Uint8Array {
  return new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength);
}

function joined(rest: Uint8Array, chunk: Buffer): Uint8Array {
  const bytes = new Uint8Array(rest.length + chunk.length);
  bytes.set(rest);
  bytes.set(chunk, rest.length);
  return bytes;
}
