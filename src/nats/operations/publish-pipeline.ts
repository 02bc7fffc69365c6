/**
 * Many single publishes over one connection, each with its own answer, for a sender that has thousands under way.
 *
 * A publish into a stream by the library is a request of its own: a promise chain, a timer, a header object and its
 * encoding, some 50 µs. Here what is published in one turn of the event loop leaves with one write, answers are told apart
 * by a number in their reply subject, and one timer watches the oldest: a small part of that. The server sees the same messages.
 *
 * Only the good case is handled here: an acknowledgement. Whatever else is answered (no stream, no permission, an error of
 * the stream) is left to `StreamPublisher`, which asks what is there and says why.
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
interface UnderWay {
  readonly publish: Publish;
  /** When its time is over, in ms of `performance.now`. */
  readonly until: number;
  readonly settle: (ack: PubAck | undefined) => void;
  readonly fail: (error: unknown) => void;
}

/** A publish, as it is called in errors. */
class Publish implements Attempt {
  readonly changes = true;

  constructor(
    readonly subject: string,
    readonly timeoutMs: number,
  ) {}

  /** Only where something fails: composing it would cost each publish. */
  get name(): string {
    return `publish to "${this.subject}"`;
  }
}

const noHeaders = "";
const lineEnd = Buffer.from("\r\n");

/** The publishes of one connection. */
export class PublishPipeline {
  readonly #watch: ConnectionWatch;
  readonly #timeoutMs: number;
  readonly #replies: string;
  readonly #underWay = new Map<number, UnderWay>();
  readonly #timer = new DeadlineTimer(() => this.#expire());
  #subscription: Subscription | undefined;
  /** False once the server has refused the subscription. */
  #getsAnswers = true;
  #lastNumber = 0;
  /** What leaves with the next write, and the publishes into streams that are among it. */
  #chunks: Uint8Array[] = [];
  #unwritten: number[] = [];
  #writing: Promise<void> | undefined;

  /** @param timeoutMs how long the answer to a publish may take, and until it has been written */
  constructor(connection: NatsConnection, timeoutMs: number) {
    this.#watch = new ConnectionWatch(connection);
    this.#timeoutMs = timeoutMs;
    this.#replies = `${createInbox(inboxPrefixOf(connection))}.`;
    const end = (): void => this.#end();
    connection.closed().then(end, end);
  }

  /**
   * Publishes a message, and resolves when it has been written to the socket. The payload must not change until then.
   *
   * @throws HawserError as `publish` of `core.ts`
   */
  async publish(subject: string, payload: Uint8Array, headers: MsgHdrs | undefined): Promise<void> {
    const attempt = new Publish(subject, this.#timeoutMs);
    await this.#send(attempt, "", headers === undefined ? noHeaders : textOf(headers), payload);
  }

  /**
   * Publishes a message into a stream. The payload must not change until this settles.
   *
   * @returns undefined: something else was answered, or this user gets no answers here
   * @throws HawserError nats_timeout, outcome_unknown: no answer came, it may be stored; payload_too_large; not_supported
   *   (headers); invalid_argument (message id); nats_unavailable: not sent
   */
  publishStream(
    subject: string,
    payload: Uint8Array,
    messageId: string,
    headers: MsgHdrs | undefined,
  ): Promise<PubAck | undefined> {
    if (!this.#getsAnswers) return Promise.resolve(undefined);
    return new Promise((settle, fail) => {
      this.#subscription ??= this.#listen();
      const publish = new Publish(subject, this.#timeoutMs);
      const number = ++this.#lastNumber;
      void this.#send(publish, ` ${this.#replies}${number}`, headersWith(messageId, headers), payload);
      this.#unwritten.push(number);
      const until = performance.now() + this.#timeoutMs;
      this.#underWay.set(number, { publish, until, settle, fail });
      this.#timer.arm(until);
    });
  }

  /** The server does not let this user publish to that subject. */
  refused(subject: string): void {
    for (const [number, { publish, settle }] of this.#underWay) {
      if (publish.subject !== subject) continue;
      this.#underWay.delete(number);
      settle(undefined);
    }
  }

  #listen(): Subscription {
    return this.#watch.connection.subscribe(`${this.#replies}*`, {
      callback: (error, answer) => {
        if (error === null) {
          this.#answered(answer);
          return;
        }
        this.#getsAnswers = false;
        this.#settleAll(({ settle }) => settle(undefined));
      },
    });
  }

  #answered(answer: Msg): void {
    this.#take(Number(answer.subject.slice(this.#replies.length)))?.settle(ackIn(answer));
  }

  #expire(): void {
    const now = performance.now();
    for (const [number, { publish, until, fail }] of this.#underWay) {
      if (until > now) {
        this.#timer.arm(until);
        return;
      }
      this.#underWay.delete(number);
      fail(timedOut(publish));
    }
  }

  #end(): void {
    this.#timer.stop();
    this.#settleAll(({ publish, fail }) => fail(connectionLost(publish)));
  }

  #settleAll(settle: (underWay: UnderWay) => void): void {
    const all = [...this.#underWay.values()];
    this.#underWay.clear();
    for (const underWay of all) settle(underWay);
  }

  /**
   * @param reply with a space before it
   * @returns what rejects if it is not written
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
      // Of publishes into streams, each is told.
      this.#writing.catch(() => undefined);
    }
    return this.#writing;
  }

  /** Writes what comes in this turn of the event loop; if the server reads too slowly, what comes until it reads on. */
  async #write(attempt: Publish): Promise<void> {
    // Behind those who publish now, and before anything that the event loop brings.
    await null;
    try {
      if (this.#watch.isCongested) await this.#watch.drained(attempt, new Deadline(this.#timeoutMs));
      const side = writeSideOf(this.#watch.connection);
      if (side === undefined) throw notConnected(attempt);
      side.flushPending();
      side.transport.socket.write(Buffer.concat(this.#chunks));
    } catch (error) {
      for (const number of this.#unwritten) this.#take(number)?.fail(error);
      throw error;
    } finally {
      this.#chunks = [];
      this.#unwritten = [];
      this.#writing = undefined;
    }
  }

  /** It is under way no more. */
  #take(number: number): UnderWay | undefined {
    const underWay = this.#underWay.get(number);
    this.#underWay.delete(number);
    return underWay;
  }
}

/** As they are sent. */
function textOf(headers: MsgHdrs): string {
  return Buffer.from(encodeHeaders(headers)).toString();
}

/** @throws HawserError invalid_argument: the message id is no value of a header */
function headersWith(messageId: string, given: MsgHdrs | undefined): string {
  checkHeaderValue(PubHeaders.MsgIdHdr, messageId);
  if (given === undefined) return `NATS/1.0\r\n${PubHeaders.MsgIdHdr}: ${messageId}\r\n\r\n`;
  const headers = copyOfHeaders(given);
  headers.set(PubHeaders.MsgIdHdr, messageId);
  return textOf(headers);
}
