/**
 * Requests with one answer each, of one connection.
 *
 * The library's own `request` makes three errors with their stacks for each request, a timer that rejects and a race of
 * promises: several times the work of the request itself. Here the library still tells the answers apart, and hears what is
 * refused: its list of requests has ours, too.
 */
import { errors, type Msg, type NatsConnection, type NatsConnectionImpl, nuid } from "@nats-io/transport-node";
import { type OutgoingHeaders, publishFrames, writeSideOf } from "./write-side.js";

/** The library's protocol, whose list of requests is used. */
type Protocol = NatsConnectionImpl["protocol"];

/** What the library wants to know of a request. */
type MuxRequest = Parameters<Protocol["request"]>[0];

const thisTurn = Promise.resolve();

/** Asks over a connection. */
export class Asking {
  readonly #connection: NatsConnection;
  /** What leaves with the next write. */
  #frames: Uint8Array[] = [];

  constructor(connection: NatsConnection) {
    this.#connection = connection;
  }

  /**
   * The first answer. What is asked in one turn of the event loop leaves with one write. The payload may be reused at once.
   *
   * @param subject without white space, as `checkSubject` demands
   * @throws (as a rejection) errors of the library: NoRespondersError, TimeoutError, PermissionViolationError,
   *   RequestError and ClosedConnectionError when the connection ends
   */
  ask(subject: string, payload: Uint8Array, timeoutMs: number, outgoing?: OutgoingHeaders): Promise<Msg> {
    if (writeSideOf(this.#connection) === undefined) return Promise.reject(new errors.ClosedConnectionError());
    const { protocol } = this.#connection as NatsConnectionImpl;
    return new Promise((resolve, reject) => {
      const asked = new Asked(protocol, subject, timeoutMs, resolve, reject);
      protocol.request(asked as unknown as MuxRequest);
      const reply = `${protocol.muxSubscriptions.baseInbox}${asked.token}`;
      if (this.#frames.push(publishFrames(subject, reply, outgoing?.bytes, [payload])) === 1) {
        // Not queueMicrotask, which makes an object for async hooks.
        void thisTurn.then(this.#write);
      }
    });
  }

  readonly #write = (): void => {
    const frames = this.#frames;
    this.#frames = [];
    const side = writeSideOf(this.#connection);
    // If it has ended, the library has told those who asked, or will.
    if (side === undefined) return;
    side.flushPending();
    side.transport.socket.write(frames.length === 1 ? frames[0]! : Buffer.concat(frames));
  };
}

/** A request that is not answered yet. */
class Asked {
  readonly token = nuid.next();
  received = 0;
  readonly requestSubject: string;
  readonly #protocol: Protocol;
  readonly #resolve: (message: Msg) => void;
  readonly #reject: (error: Error) => void;
  readonly #timer: NodeJS.Timeout;

  constructor(
    protocol: Protocol,
    subject: string,
    timeoutMs: number,
    resolve: (message: Msg) => void,
    reject: (error: Error) => void,
  ) {
    this.requestSubject = subject;
    this.#protocol = protocol;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#timer = setTimeout(() => this.resolver(new errors.TimeoutError()), timeoutMs);
  }

  /** The library has an answer, or why there is none. */
  resolver(error: Error | null, message?: Msg): void {
    clearTimeout(this.#timer);
    this.#protocol.muxSubscriptions.cancel(this as unknown as MuxRequest);
    if (error === null) this.#resolve(message!);
    else this.#reject(error);
  }
}
