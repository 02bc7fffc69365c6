/**
 * Pipeline that publishes thousands of messages concurrently over one connection, each with its own acknowledgement.
 *
 * A publish into a stream through nats.js is a request: a promise chain, a timer, a header object and its encoding take
 * about 50 µs. The pipeline costs a small fraction of that: messages of one turn of the event loop are sent by one
 * write, acknowledgements are matched by a number in their reply subject, and one timer watches the oldest. The server
 * sees the same messages.
 *
 * The pipeline handles acknowledgements only. For any other answer (no stream, no permission, an error of the stream),
 * the caller uses `StreamPublisher`, which finds out the reason.
 */
import { type PubAck, PubHeaders } from "@nats-io/jetstream";
import { createInbox, type Msg, type MsgHdrs, type NatsConnection, type Subscription } from "@nats-io/transport-node";
import { Deadline, DeadlineTimer } from "../../runtime/index.js";
import { checkHeaderValue, copyOfHeaders } from "../headers.js";
import { ConnectionWatch } from "./connection-watch.js";
import { checkSubject } from "./core.js";
import { inboxPrefixOf } from "./delivery.js";
import { type Attempt, connectionLost, notConnected, timedOut } from "./failure.js";
import { ackIn } from "./stream-publish.js";
import { encodeHeaders, writeSideOf } from "./write-side.js";

/** A publish into a stream that is not answered yet. */
interface PendingPublish {
  readonly publish: Publish;
  /** Deadline (`performance.now()`, ms). */
  readonly until: number;
  readonly settle: (ack: PubAck | undefined) => void;
  readonly fail: (error: unknown) => void;
}

/** Description of a publish for errors. */
class Publish implements Attempt {
  readonly changes = true;

  constructor(
    readonly subject: string,
    readonly timeoutMs: number,
  ) {}

  /** A getter, because composing the name for each publish would be expensive. */
  get name(): string {
    return `publish to "${this.subject}"`;
  }
}

const noHeaders = "";
const lineEnd = Buffer.from("\r\n");

/** Publish pipeline of one connection. */
export class PublishPipeline {
  readonly #watch: ConnectionWatch;
  readonly #timeoutMs: number;
  readonly #replies: string;
  readonly #pending = new Map<number, PendingPublish>();
  readonly #timer = new DeadlineTimer(() => this.#expire());
  #subscription: Subscription | undefined;
  /** False once the server has refused the subscription to the replies. */
  #canReceiveReplies = true;
  #lastNumber = 0;
  /** Chunks of the next write. */
  #chunks: Uint8Array[] = [];
  /** Numbers of the publishes into streams that are in the next write. */
  #unwritten: number[] = [];
  #writing: Promise<void> | undefined;

  /** @param timeoutMs time limit for writing a message, and for its acknowledgement */
  constructor(connection: NatsConnection, timeoutMs: number) {
    this.#watch = new ConnectionWatch(connection);
    this.#timeoutMs = timeoutMs;
    this.#replies = `${createInbox(inboxPrefixOf(connection))}.`;
    const end = (): void => this.#onClosed();
    connection.closed().then(end, end);
  }

  /**
   * Publishes a message, and resolves when it is written to the socket. The payload must not change until then.
   *
   * @throws HawserError, see `publish` of `core.ts`
   */
  async publish(subject: string, payload: Uint8Array, headers: MsgHdrs | undefined): Promise<void> {
    const attempt = new Publish(subject, this.#timeoutMs);
    await this.#send(attempt, "", headers === undefined ? noHeaders : textOf(headers), payload);
  }

  /**
   * Publishes a message into a stream. The payload must not change until the promise settles.
   *
   * @returns undefined if the answer was no acknowledgement, or this user cannot receive replies
   * @throws HawserError nats_timeout, outcome_unknown: no answer arrived, the message may be stored; payload_too_large;
   * not_supported (headers); invalid_argument (message id); nats_unavailable: not sent
   */
  publishStream(
    subject: string,
    payload: Uint8Array,
    messageId: string,
    headers: MsgHdrs | undefined,
  ): Promise<PubAck | undefined> {
    if (!this.#canReceiveReplies) return Promise.resolve(undefined);
    return new Promise((settle, fail) => {
      this.#subscription ??= this.#subscribe();
      const publish = new Publish(subject, this.#timeoutMs);
      const number = ++this.#lastNumber;
      void this.#send(publish, ` ${this.#replies}${number}`, headersWith(messageId, headers), payload);
      this.#unwritten.push(number);
      const until = performance.now() + this.#timeoutMs;
      this.#pending.set(number, { publish, until, settle, fail });
      this.#timer.arm(until);
    });
  }

  /** Resolves the publishes to a subject that the server refused, without an acknowledgement. */
  refused(subject: string): void {
    for (const [number, { publish, settle }] of this.#pending) {
      if (publish.subject !== subject) continue;
      this.#pending.delete(number);
      settle(undefined);
    }
  }

  #subscribe(): Subscription {
    return this.#watch.connection.subscribe(`${this.#replies}*`, {
      callback: (error, answer) => {
        if (error === null) {
          this.#onAnswer(answer);
          return;
        }
        this.#canReceiveReplies = false;
        this.#endAll(({ settle }) => settle(undefined));
      },
    });
  }

  #onAnswer(answer: Msg): void {
    this.#remove(Number(answer.subject.slice(this.#replies.length)))?.settle(ackIn(answer));
  }

  #expire(): void {
    const now = performance.now();
    for (const [number, { publish, until, fail }] of this.#pending) {
      if (until > now) {
        this.#timer.arm(until);
        return;
      }
      this.#pending.delete(number);
      fail(timedOut(publish));
    }
  }

  #onClosed(): void {
    this.#timer.stop();
    this.#endAll(({ publish, fail }) => fail(connectionLost(publish)));
  }

  #endAll(end: (pending: PendingPublish) => void): void {
    const all = [...this.#pending.values()];
    this.#pending.clear();
    for (const pending of all) end(pending);
  }

  /**
   * Adds a message to the next write.
   *
   * @param reply reply subject with a leading space; "" for none
   * @param headers encoded headers; "" for none
   * @returns promise that rejects if the message is not written
   */
  #send(attempt: Publish, reply: string, headers: string, payload: Uint8Array): Promise<void> {
    const { subject } = attempt;
    checkSubject("subject", subject);
    this.#watch.checkOpen(attempt);
    if (headers !== "") this.#watch.checkHeaders(attempt);
    const headersBytes = Buffer.byteLength(headers);
    const bytes = headersBytes + payload.length;
    this.#watch.checkSize(attempt, bytes);
    const command =
      headers === "" ? `PUB ${subject}${reply} ${bytes}` : `HPUB ${subject}${reply} ${headersBytes} ${bytes}`;
    this.#chunks.push(Buffer.from(`${command}\r\n${headers}`), payload, lineEnd);
    if (this.#writing === undefined) {
      this.#writing = this.#write(attempt);
      // Publishes into streams report the error themselves.
      this.#writing.catch(() => undefined);
    }
    return this.#writing;
  }

  /**
   * Writes the messages of this turn of the event loop; if the server reads too slowly, also those that follow until it
   * reads.
   */
  async #write(attempt: Publish): Promise<void> {
    // The write follows all calls of this turn, and precedes any other event.
    await null;
    try {
      if (this.#watch.isCongested) await this.#watch.drained(attempt, new Deadline(this.#timeoutMs));
      const side = writeSideOf(this.#watch.connection);
      if (side === undefined) throw notConnected(attempt);
      side.flushPending();
      side.transport.socket.write(Buffer.concat(this.#chunks));
    } catch (error) {
      for (const number of this.#unwritten) this.#remove(number)?.fail(error);
      throw error;
    } finally {
      this.#chunks = [];
      this.#unwritten = [];
      this.#writing = undefined;
    }
  }

  /** Removes and returns a pending publish. */
  #remove(number: number): PendingPublish | undefined {
    const pending = this.#pending.get(number);
    this.#pending.delete(number);
    return pending;
  }
}

/** Encoded headers as text. */
function textOf(headers: MsgHdrs): string {
  return Buffer.from(encodeHeaders(headers)).toString();
}

/** @throws HawserError invalid_argument, if the message id is not a valid header value */
function headersWith(messageId: string, given: MsgHdrs | undefined): string {
  checkHeaderValue(PubHeaders.MsgIdHdr, messageId);
  if (given === undefined) return `NATS/1.0\r\n${PubHeaders.MsgIdHdr}: ${messageId}\r\n\r\n`;
  const headers = copyOfHeaders(given);
  headers.set(PubHeaders.MsgIdHdr, messageId);
  return textOf(headers);
}
