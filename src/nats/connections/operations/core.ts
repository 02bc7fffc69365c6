/**
 * Core NATS: publishes, which end when their bytes are written to the socket and not merely queued, and requests with a
 * single answer.
 */
import type { MsgHdrs } from "@nats-io/transport-node";
import { HawserError } from "../../../foundation/errors/index.js";
import { Deadline } from "../../../foundation/runtime/index.js";
import { headerBlock, receivedHeaders } from "../headers.js";
import type { ConnectionWatch } from "./connection-watch.js";
import { connectionLost, notConnected, type OperationDescription } from "./failure.js";

/** Options of a publish. */
export interface PublishOptions {
  /** Reply subject. */
  readonly reply?: string | undefined;
  /** Headers from `readHeaders`. */
  readonly headers?: MsgHdrs | undefined;
  /** Time limit for writing the bytes, in milliseconds. */
  readonly timeoutMs: number;
}

/**
 * Empty chunk, written after all queued data to learn when that data is sent: "drain" is emitted only after a write
 * that returned false.
 */
const nothing = new Uint8Array(0);

/**
 * Publishes messages to one subject with one write, after checking all of them. Returns undefined if they are already
 * written, which is the case unless the server reads too slowly; otherwise a promise that resolves when they are. The
 * payloads may be reused as soon as this returns undefined or the promise settles.
 *
 * @throws HawserError, thrown or as a rejection: payload_too_large, not_supported (headers), invalid_argument;
 * nats_unavailable: certainly not sent; outcome_unknown: the connection closed, or the deadline passed, before all
 * bytes were sent
 */
export function publish(
  watch: ConnectionWatch,
  subject: string,
  payloads: readonly Uint8Array[],
  { reply, headers, timeoutMs }: PublishOptions,
): undefined | Promise<void> {
  const attempt = new Publish(subject, payloads, headerBlock(headers), timeoutMs, reply);
  attempt.check(watch);
  if (payloads.length === 0) return undefined;
  return watch.isCongested ? sendLater(watch, attempt) : send(watch, attempt);
}

/**
 * Adds a message to the write of this turn of the event loop, as soon as the server reads. A flush shows whether the
 * server has received it.
 *
 * @throws HawserError, as a rejection, as {@link publish}; never outcome_unknown
 */
export async function publishSoon(
  watch: ConnectionWatch,
  subject: string,
  payload: Uint8Array,
  { reply, headers, timeoutMs }: PublishOptions,
): Promise<void> {
  const attempt = new Publish(subject, [payload], headerBlock(headers), timeoutMs, reply);
  attempt.check(watch);
  if (watch.isCongested) await watch.drained(attempt, new Deadline(timeoutMs));
  watch.writer.add(subject, reply, attempt.headers, attempt.payloads);
}

async function sendLater(watch: ConnectionWatch, attempt: Publish): Promise<void> {
  const deadline = new Deadline(attempt.timeoutMs);
  await watch.drained(attempt, deadline);
  await send(watch, attempt, deadline);
}

function send(watch: ConnectionWatch, attempt: Publish, deadline?: Deadline): undefined | Promise<void> {
  const { subject, reply, headers, payloads, timeoutMs } = attempt;
  const { writer } = watch;
  if (!writer.write(subject, reply, headers, payloads)) throw notConnected(attempt);
  const { socket } = writer;
  if (socket.writableLength === 0 && !socket.destroyed) return undefined;
  const written = new Promise<void>((resolve, reject) => {
    socket.write(nothing, (error) => (error ? reject(connectionLost(attempt, error)) : resolve()));
  });
  return watch.withLimits(attempt, deadline ?? new Deadline(timeoutMs), written, {
    timeout: () => notRead(attempt),
    lost: () => connectionLost(attempt),
  });
}

/** Publish of one message or of several to one subject. */
export class Publish implements OperationDescription {
  readonly changes = true;

  /** @param headers encoded headers; "" for none */
  constructor(
    readonly subject: string,
    readonly payloads: readonly Uint8Array[],
    readonly headers: string,
    readonly timeoutMs: number,
    readonly reply?: string,
  ) {}

  /** A getter, because composing the name for each publish would be expensive. */
  get name(): string {
    const { length } = this.payloads;
    return `publish ${length === 1 ? "" : `of ${length} messages `}to "${this.subject}"`;
  }

  /** @throws HawserError payload_too_large, not_supported (headers), invalid_argument, nats_unavailable */
  check(watch: ConnectionWatch): void {
    checkSubject("subject", this.subject);
    if (this.reply !== undefined) checkSubject("reply", this.reply);
    watch.checkOpen(this);
    let largest = 0;
    for (const { length } of this.payloads) if (length > largest) largest = length;
    watch.checkMessage(this, this.headers, largest);
  }
}

function notRead({ name, timeoutMs }: OperationDescription): HawserError {
  return new HawserError(
    "outcome_unknown",
    `The NATS server has not read all of the ${name} within ${timeoutMs} ms; it may or may not be sent.`,
    { outcome: "unknown" },
  );
}

/** Options of a request. */
export interface RequestOptions {
  /** Time limit for the answer, in milliseconds. */
  readonly timeoutMs: number;
  /** Headers from `readHeaders`. */
  readonly headers?: MsgHdrs | undefined;
}

/** Headers of an error reply of a NATS service (ADR-32). */
const serviceErrorCode = "Nats-Service-Error-Code";
const serviceError = "Nats-Service-Error";

/**
 * Sends a request and resolves with the payload of the first answer.
 *
 * @throws HawserError no_responders, at once if there is no subscriber; nats_timeout; nats_failed with code and text if
 * a service answered with an error; unreadable_headers; nats_permission_denied; payload_too_large; nats_unavailable:
 * not sent; outcome_unknown: the connection closed before the answer
 */
export async function request(
  watch: ConnectionWatch,
  subject: string,
  payload: Uint8Array,
  { timeoutMs, headers }: RequestOptions,
): Promise<Uint8Array> {
  checkSubject("subject", subject);
  const attempt = { name: `request to "${subject}"`, subject, changes: true, timeoutMs };
  const block = headerBlock(headers);
  watch.checkMessage(attempt, block, payload.length);
  const deadline = new Deadline(timeoutMs);
  const answer = await watch.run(attempt, deadline, () =>
    watch.writer.request(subject, payload, deadline.remainingMs, block),
  );
  const received = receivedHeaders(answer);
  const code = received?.get(serviceErrorCode) ?? "";
  // With unreadable headers, the reply may be an answer or an error.
  if (code === "" && received?.problem !== undefined) {
    throw new HawserError(
      "unreadable_headers",
      `The answer to the request to "${subject}" has headers that cannot be read: ${received.problem}.`,
    );
  }
  if (code === "") return answer.data;
  const words = received?.get(serviceError) ?? "";
  throw new HawserError(
    "nats_failed",
    `The service at "${subject}" answered with error ${code}: ${words || "no text"}.`,
    {
      detail: `${serviceErrorCode} ${code}`,
    },
  );
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must not get through.
const unsafe = /[\u0000-\u0020]/;

/**
 * Last check before a subject becomes part of a protocol line. The spec has the complete rules, which the call has
 * already been checked against.
 *
 * @throws HawserError invalid_argument, if `subject` is empty or would end its token or line of the protocol
 */
export function checkSubject(argument: string, subject: string): void {
  if (subject !== "" && !unsafe.test(subject)) return;
  throw new HawserError(
    "invalid_argument",
    `${argument} ${JSON.stringify(subject)} must not be empty or contain white space or control characters.`,
  );
}
