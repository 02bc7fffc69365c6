/**
 * Requests with one answer each, over one connection.
 *
 * The `request` of nats.js creates three errors with stack traces per request, a timer that rejects and a race of
 * promises: several times the work of the request itself. Here, nats.js still matches the answers and receives the
 * refusals, because the requests are registered in its own list.
 */
import { errors, type Msg, type NatsConnection, type NatsConnectionImpl, nuid } from "@nats-io/transport-node";
import { type OutgoingHeaders, publishFrames, writeSideOf } from "./write-side.js";

/** Protocol object of nats.js, whose list of requests is used. */
type Protocol = NatsConnectionImpl["protocol"];

/** A request as nats.js expects it. */
type MuxRequest = Parameters<Protocol["request"]>[0];

const thisTurn = Promise.resolve();

/** Sends requests over a connection. */
export class Requests {
  readonly #connection: NatsConnection;
  /** Frames of the next write. */
  #frames: Uint8Array[] = [];

  constructor(connection: NatsConnection) {
    this.#connection = connection;
  }

  /**
   * Sends a request and resolves with the first answer. Requests of one turn of the event loop are sent by one write.
   * The payload may be reused at once.
   *
   * @param subject subject without white space, as `checkSubject` ensures
   * @throws (as a rejection) errors of nats.js: NoRespondersError, TimeoutError, PermissionViolationError,
   * RequestError, and ClosedConnectionError when the connection closes
   */
  request(subject: string, payload: Uint8Array, timeoutMs: number, outgoing?: OutgoingHeaders): Promise<Msg> {
    if (writeSideOf(this.#connection) === undefined) return Promise.reject(new errors.ClosedConnectionError());
    const { protocol } = this.#connection as NatsConnectionImpl;
    return new Promise((resolve, reject) => {
      const asked = new PendingRequest(protocol, subject, timeoutMs, resolve, reject);
      protocol.request(asked as unknown as MuxRequest);
      const reply = `${protocol.muxSubscriptions.baseInbox}${asked.token}`;
      if (this.#frames.push(publishFrames(subject, reply, outgoing?.bytes, [payload])) === 1) {
        // queueMicrotask would create an object for async hooks.
        void thisTurn.then(this.#write);
      }
    });
  }

  readonly #write = (): void => {
    const frames = this.#frames;
    this.#frames = [];
    const side = writeSideOf(this.#connection);
    // Without a connection, nats.js rejects the requests.
    if (side === undefined) return;
    side.flushPending();
    side.transport.socket.write(frames.length === 1 ? frames[0]! : Buffer.concat(frames));
  };
}

/** Request that waits for its answer. */
class PendingRequest {
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

  /** Called by nats.js with the answer, or the reason why there is none. */
  resolver(error: Error | null, message?: Msg): void {
    clearTimeout(this.#timer);
    this.#protocol.muxSubscriptions.cancel(this as unknown as MuxRequest);
    if (error === null) this.#resolve(message!);
    else this.#reject(error);
  }
}
