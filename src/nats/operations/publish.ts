/**
 * Core publish: settled when the bytes have been written to the socket, and not merely queued.
 */
import type { MsgHdrs, MsgHdrsImpl, NatsConnection } from "@nats-io/transport-node";
import { type HawserError, NatsError } from "../../errors/index.js";
import { type Attempt, connectionLost } from "../failure.js";
import type { ConnectionWatch } from "./connection-watch.js";
import { Deadline } from "./deadline.js";
import { publishFrames } from "./publish-frames.js";
import { type WriteSide, writeSideOf } from "./socket.js";
import { checkSubject } from "./subject.js";

/** How a message is published. */
export interface PublishOptions {
  /** The subject for answers. */
  readonly reply?: string | undefined;
  /** As `readHeaders` makes them. */
  readonly headers?: MsgHdrs | undefined;
  /** How long it may take until the bytes have been written, in milliseconds. */
  readonly timeoutMs: number;
}

const none = new Uint8Array(0);

/**
 * Publishes one message. Returns undefined when it has been written already, which is so unless the server reads too
 * slowly; else a promise that resolves when it has. The payload may be reused as soon as this returns.
 *
 * @throws HawserError also without a promise: payload_too_large, not_supported (headers), invalid_argument;
 *   nats_unavailable: certainly not sent; outcome_unknown: the connection ended, or the deadline passed, before all
 *   bytes had left
 */
export function publish(
  watch: ConnectionWatch,
  subject: string,
  payload: Uint8Array,
  { reply, headers, timeoutMs }: PublishOptions,
): undefined | Promise<void> {
  const attempt = { name: `publish to "${subject}"`, changes: true, timeoutMs };
  check(watch, attempt, subject, reply, headers, payload.length);
  const send = (connection: NatsConnection) => {
    connection.publish(subject, payload, {
      ...(reply === undefined ? {} : { reply }),
      ...(headers === undefined ? {} : { headers }),
    });
  };
  return watch.isCongested ? sendLater(watch, attempt, send) : sendNow(watch, attempt, send);
}

/**
 * Publishes many messages to one subject with one write, as {@link publish} does: all of them are checked before the
 * first is sent.
 */
export function publishBatch(
  watch: ConnectionWatch,
  subject: string,
  payloads: readonly Uint8Array[],
  { reply, headers, timeoutMs }: PublishOptions,
): undefined | Promise<void> {
  const attempt = { name: `publish of ${payloads.length} messages to "${subject}"`, changes: true, timeoutMs };
  let largest = 0;
  for (const { length } of payloads) if (length > largest) largest = length;
  check(watch, attempt, subject, reply, headers, largest);
  if (payloads.length === 0) return undefined;
  const encoded = headers === undefined ? undefined : encodeHeaders(headers);
  const send = (connection: NatsConnection, side: WriteSide | undefined) => {
    if (side !== undefined) {
      // What is queued goes first. The library's own way costs several times as much for each message.
      side.flushPending();
      side.socket.write(publishFrames(subject, reply, encoded, payloads));
      return;
    }
    for (const payload of payloads) {
      connection.publish(subject, payload, {
        ...(reply === undefined ? {} : { reply }),
        ...(headers === undefined ? {} : { headers }),
      });
    }
  };
  return watch.isCongested ? sendLater(watch, attempt, send) : sendNow(watch, attempt, send);
}

/** The bytes of headers as they travel, which count as a part of the message. */
export function encodeHeaders(headers: MsgHdrs): Uint8Array {
  return (headers as MsgHdrsImpl).encode();
}

function check(
  watch: ConnectionWatch,
  attempt: Attempt,
  subject: string,
  reply: string | undefined,
  headers: MsgHdrs | undefined,
  payloadBytes: number,
): void {
  checkSubject("subject", subject);
  if (reply !== undefined) checkSubject("reply", reply);
  watch.checkOpen(attempt);
  if (headers === undefined) {
    watch.checkSize(attempt, payloadBytes);
    return;
  }
  watch.checkHeaders(attempt);
  watch.checkSize(attempt, payloadBytes + encodeHeaders(headers).length);
}

type Send = (connection: NatsConnection, side: WriteSide | undefined) => void;

async function sendLater(watch: ConnectionWatch, attempt: Attempt, send: Send): Promise<void> {
  const deadline = new Deadline(attempt.timeoutMs);
  await watch.drained(attempt, deadline);
  await sendNow(watch, attempt, send, deadline);
}

function sendNow(
  watch: ConnectionWatch,
  attempt: Attempt,
  send: Send,
  deadline = new Deadline(attempt.timeoutMs),
): undefined | Promise<void> {
  const { connection } = watch;
  const side = writeSideOf(connection);
  if (side === "closed") {
    watch.checkOpen(attempt);
    return undefined;
  }
  send(connection, side);
  const endings = { timeout: () => stillWaiting(attempt), lost: () => connectionLost(attempt) };
  if (side === undefined) return watch.settled(attempt, deadline, connection.flush(), endings);
  side.flushPending();
  const { socket } = side;
  if (socket.writableLength === 0 && !socket.destroyed) return undefined;
  const written = new Promise<void>((resolve, reject) => {
    // An empty write comes after all that waits; "drain" would come only if so much waited that a write said so.
    socket.write(none, (error) => (error ? reject(connectionLost(attempt, error)) : resolve()));
  });
  return watch.settled(attempt, deadline, written, endings);
}

function stillWaiting({ name, timeoutMs }: Attempt): HawserError {
  return new NatsError(
    "outcome_unknown",
    `The NATS server has not taken all of the ${name} within ${timeoutMs} ms: it may still be sent or not.`,
    { outcome: "unknown" },
  );
}
