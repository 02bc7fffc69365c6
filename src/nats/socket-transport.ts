/**
 * Lends a dialled socket to nats.js, by the hook through which its own transports come: `setTransportFactory`.
 *
 * nats.js takes its transports from one place for the whole process. So ours is put there only for the instants in which
 * a connection of ours takes it, and nats.js's own is put back: programs that use nats.js beside Hawser do not notice.
 */
import { createRequire } from "node:module";
import type { Socket } from "node:net";
import {
  type ConnectionOptions,
  connect as connectByItself,
  type NatsConnection,
  NatsConnectionImpl,
  type Server,
  setTransportFactory,
  type Transport,
} from "@nats-io/transport-node";
import type { Dialled } from "./dial.js";
import { readHeadersHere } from "./headers.js";

/** nats.js hands options that it does not know to the transport. */
interface LentOptions extends ConnectionOptions {
  lent?: SocketTransport;
}

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
    const connection = await NatsConnectionImpl.connect(lent);
    guardListeners(connection as NatsConnectionImpl, onDefect);
    return connection;
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
    let isOver = false;
    try {
      while (true) {
        const received = this.#received;
        this.#received = [];
        yield* received;
        if (this.#received.length > 0) continue;
        if (this.isClosed) break;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
      isOver = true;
    } finally {
      if (!isOver) {
        // nats.js leaves its loop because it cannot read what came. It is kept from going on: it would print the exception,
        // with what was received, to the standard output, and would miss the server only by the answers to its PINGs.
        this.#breach();
        await new Promise<never>(() => undefined);
      }
    }
  }

  /** Closes the socket: what was received by it makes no sense. */
  #breach(): void {
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

/**
 * Lets nothing that others publish end the connection.
 *
 * nats.js reads what comes in one loop, which ends with the first exception: one of a listener, or of reading the
 * headers of a message. So listeners are guarded, and headers are read by `ReceivedHeaders`, wherever a message goes:
 * to subscriptions, requests, JetStream. All of these are subscriptions of the connection's protocol, which no public
 * function reaches: the subscription for the answers to requests is made within. See decision 0063.
 */
function guardListeners({ protocol }: NatsConnectionImpl, onDefect: (error: unknown) => void): void {
  const subscribe = protocol.subscribe.bind(protocol);
  protocol.subscribe = (subscription) => {
    const { callback } = subscription;
    subscription.callback = (error, message) => {
      try {
        if (error === null) readHeadersHere(message);
        callback.call(subscription, error, message);
      } catch (defect) {
        onDefect(defect);
      }
    };
    return subscribe(subscription);
  };
}
