/**
 * Writer of one connection: encodes publishes and requests, and finds the answers to requests.
 *
 * nats.js queues what it publishes and does not report when it is sent; a request of nats.js creates three errors with
 * stack traces, a timer that rejects and a race of promises: several times the work of the request itself. Here,
 * messages of one turn of the event loop are encoded into one buffer and sent by one write, answers are matched by a
 * number in their reply subject, and one timer watches all of them.
 */
import type { Socket } from "node:net";
import { createInbox, errors, type Msg, type NatsConnection, nuid, type Subscription } from "@nats-io/transport-node";
import { DeadlineTimer } from "../../../foundation/runtime/index.js";
import { refusedSubject } from "../connection-events.js";

/** Protocol object of a nats.js connection, which is not part of the public API of nats.js. */
interface Protocol {
  readonly connected?: boolean;
  readonly transport?: { readonly socket?: Socket };
  /** Writes the data that nats.js has queued to the socket. */
  flushPending(): void;
}

function protocolOf(connection: NatsConnection): Protocol | undefined {
  return (connection as unknown as { readonly protocol?: Protocol }).protocol;
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

/** Inbox prefix that the connection's user may subscribe to, if the connection has its own. */
export function inboxPrefixOf(connection: NatsConnection): string | undefined {
  return (connection as unknown as { options?: { inboxPrefix?: string } }).options?.inboxPrefix;
}

/** A request that waits for its answer. Few fields, because thousands may wait. */
export interface PendingRequest {
  readonly subject: string;
  /** End of the reply subject, after a number. */
  readonly suffix: string;
  /** Time limit (`performance.now()`, ms). */
  readonly until: number;
  resolve(answer: Msg): void;
  /** @param error one of those that `Writer.request` throws */
  reject(error: Error): void;
}

const thisTurn = Promise.resolve();

/** Writer of a connection of Hawser. Subjects must be without white space, as `checkSubject` ensures. */
export class Writer {
  readonly #connection: NatsConnection;
  readonly #protocol: Protocol;
  /** Socket, whose write buffer shows whether the server reads. */
  readonly socket: Socket;
  /** Messages of the next write. */
  readonly #frames = new Frames();
  /** Start of all reply subjects. */
  readonly #replies: string;
  #subscription: Subscription | undefined;
  readonly #pending = new Map<number, PendingRequest>();
  #lastNumber = 0;
  readonly #timer = new DeadlineTimer(() => this.#expire());

  constructor(connection: NatsConnection) {
    this.#connection = connection;
    this.#protocol = protocolOf(connection)!;
    this.socket = socketOf(connection)!;
    this.#replies = `${createInbox(inboxPrefixOf(connection))}.`;
    void this.#watchRefusals();
    const end = (): void => {
      this.#timer.stop();
      this.#reject(new errors.ClosedConnectionError());
    };
    connection.closed().then(end, end);
  }

  /**
   * Adds messages of one subject to the write at the end of this turn of the event loop. The payloads may be reused at
   * once.
   *
   * @param headers encoded headers; "" for none
   */
  add(subject: string, reply: string | undefined, headers: string, payloads: readonly Uint8Array[]): void {
    // queueMicrotask would create an object for async hooks.
    if (this.#frames.isEmpty) void thisTurn.then(this.flush);
    this.#frames.add(subject, reply, headers, payloads);
  }

  /** Writes messages of one subject at once, as {@link add} and {@link flush} do. */
  write(subject: string, reply: string | undefined, headers: string, payloads: readonly Uint8Array[]): boolean {
    this.#frames.add(subject, reply, headers, payloads);
    return this.flush();
  }

  /**
   * Writes the added messages now, after those that nats.js has queued.
   *
   * @returns false if the connection has closed; the messages are dropped
   */
  readonly flush = (): boolean => {
    const isOpen = !isClosed(this.#connection);
    if (isOpen && !this.#frames.isEmpty) {
      this.#protocol.flushPending();
      this.socket.write(this.#frames.bytes);
    }
    this.#frames.clear(this.socket.writableLength === 0);
    return isOpen;
  };

  /**
   * Sends a request with the next write, and resolves with the first answer. Who has received another request cannot
   * guess the reply subject.
   *
   * @param headers encoded headers; "" for none
   * @throws (as a rejection) errors of nats.js: NoRespondersError, TimeoutError, PermissionViolationError, and
   * ClosedConnectionError when the connection closes
   */
  request(subject: string, payload: Uint8Array, timeoutMs: number, headers = ""): Promise<Msg> {
    return new Promise((resolve, reject) => {
      const until = performance.now() + timeoutMs;
      this.ask({ subject, suffix: nuid.next(), until, resolve, reject }, [payload], headers);
    });
  }

  /** Sends a request with the next write. @throws errors of nats.js, if the connection is closed or draining */
  ask(request: PendingRequest, payload: readonly [Uint8Array], headers: string): void {
    if (isClosed(this.#connection)) throw new errors.ClosedConnectionError();
    this.#subscription ??= this.#subscribe();
    const number = ++this.#lastNumber;
    this.#pending.set(number, request);
    this.add(request.subject, `${this.#replies}${number}-${request.suffix}`, headers, payload);
    this.#timer.arm(request.until);
  }

  #subscribe(): Subscription {
    return this.#connection.subscribe(`${this.#replies}*`, {
      callback: (error, answer) => {
        if (error === null) {
          this.#onAnswer(answer);
          return;
        }
        // The next request subscribes again, since permissions may change.
        this.#subscription = undefined;
        this.#reject(error);
      },
    });
  }

  #onAnswer(answer: Msg): void {
    const end = answer.subject.slice(this.#replies.length);
    const dash = end.indexOf("-");
    const number = Number(end.slice(0, dash));
    const pending = this.#pending.get(number);
    if (pending?.suffix !== end.slice(dash + 1)) return;
    this.#pending.delete(number);
    if (answer.data.length > 0 || answer.headers?.code !== 503) pending.resolve(answer);
    else pending.reject(new errors.NoRespondersError(pending.subject));
  }

  /** Rejects the requests that the server refuses. */
  async #watchRefusals(): Promise<void> {
    for await (const status of this.#connection.status()) {
      if (status.type !== "error") continue;
      const refused = refusedSubject(status.error.message);
      if (refused !== undefined) this.#reject(status.error, ({ subject }) => subject === refused);
    }
  }

  #expire(): void {
    const now = performance.now();
    this.#reject(new errors.TimeoutError(), ({ until }) => until <= now);
    for (const { until } of this.#pending.values()) this.#timer.arm(until);
  }

  /** Rejects the pending requests that are meant; by default, all. */
  #reject(error: Error, isMeant: (pending: PendingRequest) => boolean = () => true): void {
    for (const [number, pending] of this.#pending) {
      if (!isMeant(pending)) continue;
      this.#pending.delete(number);
      pending.reject(error);
    }
  }
}

const carriageReturn = 0x0d;
const lineFeed = 0x0a;
/** Maximum number of digits of a length: payloads are below 2^53 bytes. */
const maxDigits = 16;
/** Size up to which a buffer is kept for the next write. */
const maxKeptBytes = 1024 * 1024;
const nothing = Buffer.alloc(0);

/** Messages in the NATS protocol (PUB, or HPUB with headers), one after another in a buffer that grows. */
class Frames {
  #bytes = nothing;
  #end = 0;

  get isEmpty(): boolean {
    return this.#end === 0;
  }

  /** All messages. */
  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#end);
  }

  /** @param headers encoded headers, including the empty line at their end; "" for none */
  add(subject: string, reply: string | undefined, headers: string, payloads: readonly Uint8Array[]): void {
    const headerBytes = headers === "" ? 0 : Buffer.byteLength(headers);
    const address = reply === undefined ? subject : `${subject} ${reply}`;
    const command = headers === "" ? `PUB ${address}` : `HPUB ${address} ${headerBytes}`;
    // UTF-8 has at most three bytes for a UTF-16 unit.
    let bytes = payloads.length * (3 * command.length + headerBytes + maxDigits + " \r\n\r\n".length);
    for (const { length } of payloads) bytes += length;
    const target = this.#reserve(bytes);
    let end = this.#end;
    let [start, startEnd, length] = [0, 0, -1];
    for (const payload of payloads) {
      if (payload.length === length) {
        // Copying is faster than encoding again.
        target.copyWithin(end, start, startEnd);
        end += startEnd - start;
      } else {
        ({ length } = payload);
        start = end;
        end += target.write(`${command} ${headerBytes + length}\r\n${headers}`, end);
        startEnd = end;
      }
      target.set(payload, end);
      end += length;
      target[end++] = carriageReturn;
      target[end++] = lineFeed;
    }
    this.#end = end;
  }

  /** Removes all messages. @param isFree true to use the buffer again, because the socket has sent {@link bytes} */
  clear(isFree: boolean): void {
    this.#end = 0;
    if (!isFree || this.#bytes.length > maxKeptBytes) this.#bytes = nothing;
  }

  /** Makes room for so many more bytes. */
  #reserve(bytes: number): Buffer {
    const needed = this.#end + bytes;
    if (needed > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(this.#end === 0 ? needed : 2 * needed);
      this.#bytes.copy(larger, 0, 0, this.#end);
      this.#bytes = larger;
    }
    return this.#bytes;
  }
}
