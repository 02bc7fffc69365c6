/**
 * Write side of a connection: its socket, and the encoding of messages.
 */
import type { Socket } from "node:net";
import type { MsgHdrs, MsgHdrsImpl, NatsConnection } from "@nats-io/transport-node";

/** Protocol object of a nats.js connection, which is not part of its public API. */
interface ExposedProtocol {
  readonly connected?: boolean;
  readonly transport?: { readonly socket?: Socket };
}

/**
 * Write side of a connection of Hawser. It lets callers know when bytes are sent: nats.js queues publishes, writes them
 * in a microtask, and reports nothing.
 */
export interface WriteSide {
  readonly transport: { readonly socket: Socket };
  /** Writes the data that nats.js has queued to the socket. */
  flushPending(): void;
}

/** Socket of a connection; undefined if it is not exposed, as in another version of nats.js, or over a WebSocket. */
export function socketOf(connection: NatsConnection): Socket | undefined {
  return protocolOf(connection)?.transport?.socket;
}

/** True if the connection can send nothing any more. */
export function isClosed(connection: NatsConnection): boolean {
  // nats.js notices the end of a socket before `isClosed` is true, and silently drops publishes in between.
  return (
    connection.isClosed() || protocolOf(connection)?.connected === false || socketOf(connection)?.writable === false
  );
}

/** Write side of a connection of Hawser; undefined if the connection is closed. */
export function writeSideOf(connection: NatsConnection): WriteSide | undefined {
  return isClosed(connection) ? undefined : (protocolOf(connection) as WriteSide);
}

function protocolOf(connection: NatsConnection): ExposedProtocol | undefined {
  return (connection as unknown as { readonly protocol?: ExposedProtocol }).protocol;
}

/** Headers with their encoding. */
export interface OutgoingHeaders {
  readonly headers: MsgHdrs;
  readonly bytes: Uint8Array;
}

export function outgoingHeaders(headers: MsgHdrs): OutgoingHeaders {
  return { headers, bytes: encodeHeaders(headers) };
}

/** Encodes headers. The encoding counts against the maximum size of a message. */
export function encodeHeaders(headers: MsgHdrs): Uint8Array {
  return (headers as MsgHdrsImpl).encode();
}

const carriageReturn = 0x0d;
const lineFeed = 0x0a;
/** Maximum number of digits of a length: payloads are below 2^53 bytes. */
const maxDigits = 16;

/**
 * Encodes messages of one subject in the NATS protocol (PUB, or HPUB with headers), one after another in a new buffer.
 *
 * @param subject subject without white space, as `checkSubject` ensures
 * @param headers encoded headers, including the empty line at their end
 */
export function publishFrames(
  subject: string,
  reply: string | undefined,
  headers: Uint8Array | undefined,
  payloads: readonly Uint8Array[],
): Buffer {
  const headerBytes = headers?.length ?? 0;
  const command = headers === undefined ? "PUB" : "HPUB";
  const address = reply === undefined ? subject : `${subject} ${reply}`;
  const start = Buffer.from(`${command} ${address} ${headers === undefined ? "" : `${headerBytes} `}`);
  let capacity = payloads.length * (start.length + maxDigits + headerBytes + 4);
  for (const { length } of payloads) capacity += length;
  const frames = Buffer.allocUnsafe(capacity);
  let end = 0;
  for (const payload of payloads) {
    frames.set(start, end);
    end += start.length;
    end = writeDecimal(frames, headerBytes + payload.length, end);
    frames[end++] = carriageReturn;
    frames[end++] = lineFeed;
    if (headers !== undefined) {
      frames.set(headers, end);
      end += headerBytes;
    }
    frames.set(payload, end);
    end += payload.length;
    frames[end++] = carriageReturn;
    frames[end++] = lineFeed;
  }
  return frames.subarray(0, end);
}

/** Writes the digits of an integer without creating a string, and returns their end. */
function writeDecimal(target: Buffer, value: number, start: number): number {
  let end = start + 1;
  for (let rest = value; rest >= 10; rest = Math.floor(rest / 10)) end++;
  let rest = value;
  for (let at = end - 1; at >= start; at--) {
    target[at] = 0x30 + (rest % 10);
    rest = Math.floor(rest / 10);
  }
  return end;
}
