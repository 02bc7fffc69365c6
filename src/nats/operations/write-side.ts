/**
 * The writing side of a connection: its socket, and messages as the bytes that are written to it.
 */
import type { Socket } from "node:net";
import type { MsgHdrs, MsgHdrsImpl, NatsConnection } from "@nats-io/transport-node";

/** Part of the protocol of nats.js that a connection may show, beyond its public interface. */
interface ShownProtocol {
  readonly connected?: boolean;
  readonly transport?: { readonly socket?: Socket };
}

/**
 * The writing side of a connection of Hawser, by which it is known when bytes have left: the library queues what is
 * published, writes it in a microtask and tells no one when.
 */
export interface WriteSide {
  readonly transport: { readonly socket: Socket };
  /** Writes to the socket what nats.js has queued. */
  flushPending(): void;
}

/** The socket; undefined where a connection of the user's shows none, such as one of another version, or over a WebSocket. */
export function socketOf(connection: NatsConnection): Socket | undefined {
  return shownBy(connection)?.transport?.socket;
}

/** Whether nothing that is sent now can leave any more. */
export function isOver(connection: NatsConnection): boolean {
  // nats.js notices the end of a socket before it counts as closed, and drops silently what is published in between.
  return connection.isClosed() || shownBy(connection)?.connected === false || socketOf(connection)?.writable === false;
}

/** The writing side of a connection of Hawser; undefined if it is over. */
export function writeSideOf(connection: NatsConnection): WriteSide | undefined {
  return isOver(connection) ? undefined : (shownBy(connection) as WriteSide);
}

function shownBy(connection: NatsConnection): ShownProtocol | undefined {
  return (connection as unknown as { readonly protocol?: ShownProtocol }).protocol;
}

/** Headers, and the bytes that they are sent as. */
export interface OutgoingHeaders {
  readonly headers: MsgHdrs;
  readonly bytes: Uint8Array;
}

export function outgoingHeaders(headers: MsgHdrs): OutgoingHeaders {
  return { headers, bytes: encodeHeaders(headers) };
}

/** The bytes of headers as they travel, which count as a part of the message. */
export function encodeHeaders(headers: MsgHdrs): Uint8Array {
  return (headers as MsgHdrsImpl).encode();
}

const carriageReturn = 0x0d;
const lineFeed = 0x0a;
/** The digits of a length, at most: payloads are below 2^53 bytes. */
const maxDigits = 16;

/**
 * Messages of one subject as the bytes that the NATS protocol has for them (PUB, or HPUB with headers), one after the
 * other in a buffer of their own.
 *
 * @param subject without white space, as `checkSubject` demands
 * @param headers as they travel, the empty line at their end included
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

/** Writes the digits of a whole number, without a string between, and returns where they end. */
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
