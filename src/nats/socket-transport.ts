/**
 * Lends a dialled socket to nats.js.
 *
 * nats.js takes its transports from one place for the whole process. So ours is put there only for the instants in which
 * a connection of ours takes it, and nats.js's own is put back: programs that use nats.js beside Hawser do not notice.
 */
import { createRequire } from "node:module";
import type { Socket } from "node:net";
import {
  type ConnectionOptions,
  connect as connectByItself,
  type Msg,
  MsgImpl,
  type NatsConnection,
  NatsConnectionImpl,
  Parser,
  ProtocolHandler,
  type Server,
  type Subscription,
  type SubscriptionImpl,
  setTransportFactory,
  type Transport,
} from "@nats-io/transport-node";
import type { Dialled } from "./dial.js";
import { ReceivedHeaders } from "./headers.js";

/** nats.js hands options that it does not know to the transport. */
interface LentOptions extends ConnectionOptions {
  lent?: SocketTransport;
}

/** What the library makes by `connect` alone. */
const Connection = NatsConnectionImpl as unknown as new (options: ConnectionOptions) => NatsConnectionImpl;

/** Transports that are about to be taken, in the order in which their connections were begun. */
const waiting: SocketTransport[] = [];

/**
 * The client protocol over a dialled socket, which belongs to nats.js from now on. Resolves when the server has accepted
 * our greeting.
 *
 * @param onDefect told of what a listener to messages throws
 * @throws whatever nats.js says; `transport.failure` is what the socket says
 */
export async function connectOver(
  transport: SocketTransport,
  options: ConnectionOptions,
  onDefect: (error: unknown) => void,
): Promise<NatsConnection> {
  const lent: LentOptions = {
    ...options,
    lent: transport,
    // If the transport of another user of nats.js got in between, which is no socket of ours, nothing secret is sent over it.
    authenticator: (nonce) => {
      if (!transport.isTaken) throw new Error("nats.js took another transport than ours");
      return typeof options.authenticator === "function" ? options.authenticator(nonce) : undefined;
    },
  };
  waiting.push(transport);
  setTransportFactory({ factory: takeFirst });
  try {
    // As NatsConnectionImpl.connect does, with a protocol of ours.
    const connection = new Connection(lent);
    const observer = { onDefect, onBreach: () => transport.breach() };
    connection.protocol = new GuardedProtocol(connection.options, connection, observer);
    await connection.protocol.dialLoop();
    return connection as NatsConnection;
  } finally {
    if (!transport.isTaken) {
      if (waiting.includes(transport)) remove(transport);
      transport.discard();
    }
  }
}

function takeFirst(): SocketTransport {
  const [first] = waiting;
  if (first === undefined) throw new Error("no socket waits to be taken");
  remove(first);
  return first;
}

function remove(transport: SocketTransport): void {
  waiting.splice(waiting.indexOf(transport), 1);
  if (waiting.length === 0) restoreFactory();
}

/** `connect` puts its own factory in place before it sees that these two options exclude each other. */
function restoreFactory(): void {
  connectByItself({ servers: ["127.0.0.1:4222"], port: 4222 }).catch(() => undefined);
}

/** How nats.js names itself to servers. */
const { version } = createRequire(import.meta.url)("@nats-io/transport-node/package.json") as { version: string };

/** A dialled socket as nats.js wants it. */
export class SocketTransport implements Transport {
  readonly lang = "nats.js";
  readonly version = version;
  /** What ended the socket; undefined while it lives and if the other side just closed it. */
  failure: Error | undefined;
  isTaken = false;
  isClosed = false;
  readonly #socket: Socket;
  readonly #encrypted: boolean;
  #received: Uint8Array[];
  #wake: () => void = () => undefined;
  readonly #closed: Promise<void>;

  constructor({ socket, received }: Dialled) {
    this.#socket = socket;
    this.#encrypted = "encrypted" in socket;
    this.#received = [received];
    socket.on("data", (chunk) => {
      this.#received.push(chunk);
      this.#wake();
    });
    socket.on("error", (error) => {
      this.failure = error;
    });
    this.#closed = new Promise((resolve) => {
      socket.once("close", () => {
        this.isClosed = true;
        this.#wake();
        resolve();
      });
    });
  }

  /** The socket, to see what waits to be written. */
  get socket(): Socket {
    return this.#socket;
  }

  /** @throws Error if it is a connection that is not of Hawser, which took this transport instead of its own */
  async connect(_server: Server, options: LentOptions): Promise<void> {
    if (options.lent !== this) throw new Error("this transport is Hawser's, and was taken by mistake; connect again");
    delete options.lent;
    this.isTaken = true;
  }

  isEncrypted(): boolean {
    return this.#encrypted;
  }

  send(frame: Uint8Array): void {
    if (!this.#socket.destroyed) this.#socket.write(frame);
  }

  /** Ends with the socket, after everything that it received. */
  async *[Symbol.asyncIterator](): AsyncIterableIterator<Uint8Array> {
    try {
      while (true) {
        const received = this.#received;
        this.#received = [];
        yield* received;
        if (this.#received.length > 0) continue;
        if (this.isClosed) return;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    } finally {
      // Where nats.js leaves the loop it reads no more, and would only notice by the answers to its PINGs that are missing.
      if (!this.#socket.destroyed) this.breach();
    }
  }

  /** Closes the socket: what was received by it makes no sense. */
  breach(): void {
    this.failure ??= new Error("the server sent what is no NATS protocol");
    this.#socket.destroy();
  }

  /** Resolves when the socket is closed. nats.js knows by itself what the server said last. */
  closed(): Promise<void> {
    return this.#closed;
  }

  async close(): Promise<void> {
    this.#socket.destroy();
    await this.#closed;
  }

  disconnect(): void {
    this.#socket.destroy();
  }

  discard(): void {
    this.#socket.destroy();
  }
}

/** Is told of what no caller sees. */
interface ProtocolObserver {
  /** The listener to a message has thrown. The message has not been handled. */
  onDefect(error: unknown): void;
  /** The server has sent what is no NATS: nothing more can be read of this connection. */
  onBreach(): void;
}

/**
 * The client protocol of nats.js, in which nothing that others publish can end the connection.
 *
 * nats.js reads what comes in one loop, which ends with the first exception: one of a listener, or of reading the
 * headers of a message. Here listeners are guarded, and headers are read by {@link ReceivedHeaders}, wherever a message goes:
 * to subscriptions, requests, JetStream.
 */
class GuardedProtocol extends ProtocolHandler {
  readonly #observer: ProtocolObserver;

  constructor(
    options: ConnectionOptions,
    publisher: ConstructorParameters<typeof ProtocolHandler>[1],
    observer: ProtocolObserver,
  ) {
    super(options, publisher);
    this.#observer = observer;
  }

  override subscribe(subscription: SubscriptionImpl): Subscription {
    const { callback } = subscription;
    subscription.callback = (error, message) => {
      try {
        callback.call(subscription, error, error === null ? withReadableHeaders(message) : message);
      } catch (defect) {
        this.#observer.onDefect(defect);
      }
    };
    return super.subscribe(subscription);
  }

  /** Begins a connection. */
  override resetOutbound(): void {
    super.resetOutbound();
    this.parser = new GuardedParser(this, () => this.#observer.onBreach());
  }
}

/** The library would write its exceptions, with what was received, to the standard output. */
class GuardedParser extends Parser {
  readonly #onBreach: () => void;
  #isBroken = false;

  constructor(dispatcher: ConstructorParameters<typeof Parser>[0], onBreach: () => void) {
    super(dispatcher);
    this.#onBreach = onBreach;
  }

  override parse(received: Uint8Array): void {
    if (this.#isBroken) return;
    try {
      super.parse(received);
    } catch {
      this.#isBroken = true;
      this.#onBreach();
    }
  }
}

class ReadableMessage extends MsgImpl {
  override get headers(): ReceivedHeaders {
    this._headers ??= new ReceivedHeaders(this._rdata.subarray(0, this._msg.hdr));
    return this._headers as ReceivedHeaders;
  }
}

function withReadableHeaders(message: Msg): Msg {
  if (!(message instanceof MsgImpl) || message._msg.hdr < 0) return message;
  return new ReadableMessage(message._msg, message._rdata, message.publisher);
}
