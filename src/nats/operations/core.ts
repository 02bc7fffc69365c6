/**
 * Core NATS: a publish, which is settled when its bytes have been written to the socket and not merely queued, and a
 * request with its one answer.
 */
import type { MsgHdrs } from "@nats-io/transport-node";
import { HawserError } from "../../errors/index.js";
import { Deadline } from "../../runtime/index.js";
import { receivedHeaders } from "../headers.js";
import type { ConnectionWatch } from "./connection-watch.js";
import { type Attempt, connectionLost, notConnected } from "./failure.js";
import { encodeHeaders, outgoingHeaders, publishFrames, type WriteSide, writeSideOf } from "./write-side.js";

/** How messages are published. */
export interface PublishOptions {
  /** The subject for answers. */
  readonly reply?: string | undefined;
  /** As `readHeaders` makes them. */
  readonly headers?: MsgHdrs | undefined;
  /** How long it may take until the bytes have been written, in milliseconds. */
  readonly timeoutMs: number;
}

/** Written after all that waits, to hear when it has left: "drain" comes only where so much waits that a write said so. */
const nothing = new Uint8Array(0);

/**
 * Publishes messages to one subject with one write, after checking all of them. Returns undefined when they have been
 * written already, which is so unless the server reads too slowly for them; else a promise that resolves when they
 * have. The payloads may be reused as soon as this returns undefined or the promise settles.
 *
 * @throws HawserError, also without a promise: payload_too_large, not_supported (headers), invalid_argument;
 *   nats_unavailable: certainly not sent; outcome_unknown: the connection ended, or the deadline passed, before all
 *   bytes had left
 */
export function publish(
  watch: ConnectionWatch,
  subject: string,
  payloads: readonly Uint8Array[],
  options: PublishOptions,
): undefined | Promise<void> {
  const outgoing = new Outgoing(subject, payloads, options);
  outgoing.check(watch);
  if (payloads.length === 0) return undefined;
  return watch.isCongested ? outgoing.sendLater(watch) : outgoing.send(watch, undefined);
}

/** What is published by one call, and how it is called in errors. */
class Outgoing implements Attempt {
  readonly changes = true;
  readonly timeoutMs: number;
  readonly #reply: string | undefined;
  readonly #encodedHeaders: Uint8Array | undefined;

  constructor(
    readonly subject: string,
    readonly payloads: readonly Uint8Array[],
    { reply, headers, timeoutMs }: PublishOptions,
  ) {
    this.timeoutMs = timeoutMs;
    this.#reply = reply;
    this.#encodedHeaders = headers === undefined ? undefined : encodeHeaders(headers);
  }

  /** Only where something fails: composing it would cost each publish. */
  get name(): string {
    const { length } = this.payloads;
    return `publish ${length === 1 ? "" : `of ${length} messages `}to "${this.subject}"`;
  }

  check(watch: ConnectionWatch): void {
    checkSubject("subject", this.subject);
    if (this.#reply !== undefined) checkSubject("reply", this.#reply);
    watch.checkOpen(this);
    let largest = 0;
    for (const { length } of this.payloads) if (length > largest) largest = length;
    if (this.#encodedHeaders !== undefined) {
      watch.checkHeaders(this);
      largest += this.#encodedHeaders.length;
    }
    watch.checkSize(this, largest);
  }

  async sendLater(watch: ConnectionWatch): Promise<void> {
    const deadline = new Deadline(this.timeoutMs);
    await watch.drained(this, deadline);
    await this.send(watch, deadline);
  }

  send(watch: ConnectionWatch, deadline: Deadline | undefined): undefined | Promise<void> {
    const side = writeSideOf(watch.connection);
    if (side === undefined) throw notConnected(this);
    const { socket } = side.transport;
    this.#write(side);
    if (socket.writableLength === 0 && !socket.destroyed) return undefined;
    const written = new Promise<void>((resolve, reject) => {
      socket.write(nothing, (error) => (error ? reject(connectionLost(this, error)) : resolve()));
    });
    return watch.settled(this, deadline ?? new Deadline(this.timeoutMs), written, {
      timeout: () => stillWaiting(this),
      lost: () => connectionLost(this),
    });
  }

  /** With what the library has queued before. Its own way of publishing costs several times as much. */
  #write(side: WriteSide): void {
    side.flushPending();
    side.transport.socket.write(publishFrames(this.subject, this.#reply, this.#encodedHeaders, this.payloads));
  }
}

function stillWaiting({ name, timeoutMs }: Attempt): HawserError {
  return new HawserError(
    "outcome_unknown",
    `The NATS server has not taken all of the ${name} within ${timeoutMs} ms: it may still be sent or not.`,
    { outcome: "unknown" },
  );
}

/** How a request is made. */
export interface RequestOptions {
  /** How long the answer may take, in milliseconds. */
  readonly timeoutMs: number;
  /** As `readHeaders` makes them. */
  readonly headers?: MsgHdrs | undefined;
}

/** The headers by which a service says that it could not answer (NATS services, ADR-32). */
const serviceErrorCode = "Nats-Service-Error-Code";
const serviceError = "Nats-Service-Error";

/**
 * The payload of the first answer.
 *
 * @throws HawserError no_responders at once, where nobody listens to the subject; nats_timeout; nats_failed where a
 *   service answered that it failed, with its code and words; unreadable_headers; nats_permission_denied; payload_too_large;
 *   nats_unavailable: not sent; outcome_unknown: the connection ended before the answer came
 */
export async function request(
  watch: ConnectionWatch,
  subject: string,
  payload: Uint8Array,
  { timeoutMs, headers }: RequestOptions,
): Promise<Uint8Array> {
  checkSubject("subject", subject);
  const attempt = { name: `request to "${subject}"`, subject, changes: true, timeoutMs };
  const outgoing = headers === undefined ? undefined : outgoingHeaders(headers);
  if (outgoing !== undefined) watch.checkHeaders(attempt);
  watch.checkSize(attempt, payload.length + (outgoing?.bytes.length ?? 0));
  const deadline = new Deadline(timeoutMs);
  const answer = await watch.run(attempt, deadline, () => watch.ask(subject, payload, deadline.remainingMs, outgoing));
  const received = receivedHeaders(answer);
  const code = received?.get(serviceErrorCode) ?? "";
  // Whether it is an answer or an error is not known.
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
    `The service at "${subject}" answered with error ${code}: ${words || "no words"}.`,
    {
      detail: `${serviceErrorCode} ${code}`,
    },
  );
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must not get through.
const unsafe = /[\u0000-\u0020]/;

/**
 * The last check before a subject becomes part of a line of the protocol. Its real rules are in the spec, and have been
 * checked with the call.
 *
 * @throws HawserError invalid_argument, if `subject` is empty or would end its word or line of the protocol
 */
export function checkSubject(argument: string, subject: string): void {
  if (subject !== "" && !unsafe.test(subject)) return;
  throw new HawserError(
    "invalid_argument",
    `${argument} ${JSON.stringify(subject)} must not be empty, and have no white space and no control characters.`,
  );
}
