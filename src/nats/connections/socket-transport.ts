/**
 * Passes a dialled socket to nats.js through `setTransportFactory`, the hook that its own transports use.
 *
 * nats.js has one transport factory per process. Hawser's makes the transports of nats.js for all connections but those
 * that wait for theirs, so it can stay set: connections of the program connect and reconnect as ever.
 */
import type { Socket } from "node:net";
import {
  type ConnectionOptions,
  type NatsConnection,
  NatsConnectionImpl,
  type Server,
  setTransportFactory,
  type Transport,
} from "@nats-io/transport-node";
import { NodeTransport, nodeResolveHost, VERSION } from "@nats-io/transport-node/lib/node_transport.js";
import type { Dialled } from "./dial.js";
import { parseHeadersHere } from "./headers.js";

/** Options of a connection with its transport. nats.js passes options that it does not know to the transport. */
interface OptionsWithTransport extends ConnectionOptions {
  ownTransport?: SocketTransport;
}

/** Transports that are not taken yet, in the order of their connections. */
const waiting: SocketTransport[] = [];

const transports = {
  factory: (): Transport => waiting.shift() ?? new NodeTransport(),
  dnsResolveFn: nodeResolveHost,
};

/**
 * Starts the client protocol over a dialled socket, which nats.js owns from now on. Resolves when the server has
 * accepted CONNECT.
 *
 * @param onDefect called with errors that message listeners throw
 * @throws errors of nats.js; `transport.failure` has the error of the socket
 */
export async function connectOver(
  transport: SocketTransport,
  options: ConnectionOptions,
  onDefect: (error: unknown) => void,
): Promise<NatsConnection> {
  const withTransport: OptionsWithTransport = {
    ...options,
    ownTransport: transport,
    // If nats.js has taken another transport, because the program set a factory meanwhile, no secret may be sent over
    // it.
    authenticator: (nonce) => {
      if (!transport.isTaken) throw new Error("nats.js took another transport than Hawser's");
      return typeof options.authenticator === "function" ? options.authenticator(nonce) : undefined;
    },
  };
  waiting.push(transport);
  // The `connect` of nats.js sets its own factory each time.
  setTransportFactory(transports);
  try {
    const connection = await NatsConnectionImpl.connect(withTransport);
    guardListeners(connection as NatsConnectionImpl, onDefect);
    return connection;
  } finally {
    if (!transport.isTaken) {
      if (waiting.includes(transport)) waiting.splice(waiting.indexOf(transport), 1);
      transport.discard();
    }
  }
}

/** Transport of nats.js over a dialled socket. */
export class SocketTransport implements Transport {
  readonly lang = "nats.js";
  readonly version = VERSION;
  /** Error that ended the socket; undefined while it is open, or if the server closed it. */
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

  /** Socket, whose write buffer shows whether the server reads. */
  get socket(): Socket {
    return this.#socket;
  }

  /** Called by nats.js. @throws Error if a connection that is not Hawser's took this transport instead of its own */
  async connect(_server: Server, options: OptionsWithTransport): Promise<void> {
    if (options.ownTransport !== this)
      throw new Error("this transport belongs to Hawser and was taken by mistake; connect again");
    delete options.ownTransport;
    this.isTaken = true;
  }

  isEncrypted(): boolean {
    return this.#encrypted;
  }

  send(frame: Uint8Array): void {
    if (!this.#socket.destroyed) this.#socket.write(frame);
  }

  /** Ends when the socket has closed and all received chunks are consumed. */
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
        // nats.js ends its loop when it cannot parse a chunk. This iterator never returns, because nats.js would then
        // print the exception, with the received bytes, to standard output, and would notice the loss only by missing
        // PONGs.
        this.#closeInvalid();
        await new Promise<never>(() => undefined);
      }
    }
  }

  /** Closes the socket after invalid protocol data. */
  #closeInvalid(): void {
    this.failure ??= new Error("the server sent data that is not NATS protocol");
    this.#socket.destroy();
  }

  /** Resolves when the socket has closed, without its error: nats.js reports the last error of the server itself. */
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
 * Keeps messages of other clients from ending the connection.
 *
 * nats.js reads in a single loop, which ends with the first exception: of a listener, or of parsing the headers of a
 * message. So errors of listeners are caught, and headers are parsed by `ReceivedHeaders`, for subscriptions, requests
 * and JetStream alike. All of these are subscriptions of the connection's protocol object. No public function reaches
 * it, because the subscription for replies is made internally. See docs/decisions/nats.md.
 */
function guardListeners({ protocol }: NatsConnectionImpl, onDefect: (error: unknown) => void): void {
  const subscribe = protocol.subscribe.bind(protocol);
  protocol.subscribe = (subscription) => {
    const { callback } = subscription;
    subscription.callback = (error, message) => {
      try {
        if (error === null) parseHeadersHere(message);
        callback.call(subscription, error, message);
      } catch (defect) {
        onDefect(defect);
      }
    };
    return subscribe(subscription);
  };
}
