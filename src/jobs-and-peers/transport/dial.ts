/**
 * Dialling a listener: connect, authenticate, and verify the listener.
 *
 *     TCP ──▶ (TLS) ──▶ Challenge awaited ──▶ Welcome awaited ──▶ established
 *      └────────┴───────────────┴─── timeout, abort, error ┴──────▶ rejected
 */
import { randomBytes } from "node:crypto";
import { lookup } from "node:dns";
import { connect, isIP, type LookupFunction, type Socket } from "node:net";
import { type PeerSettings, protocolConstants } from "../../../generated/ts/settings/peer.js";
import { HawserError } from "../../foundation/errors/index.js";
import { addressAttempts, type Clock, systemClock } from "../../foundation/runtime/index.js";
import type { TlsCredentials } from "../../foundation/tls/index.js";
import {
  type Address,
  formatAddress,
  type HelloFields,
  isLoopback,
  parseAddress,
  type Welcome,
} from "../wire/index.js";
import { SenderConnection, type SenderHandlers, senderReceiver } from "./connection.js";
import { connectionEnded, dialTlsFailure, plaintextRefused } from "./failures.js";
import { type FrameReceiver, FrameSocket, type ReceivedFrame } from "./frame-socket.js";
import { DiallerHandshake, nonceBytes } from "./handshake.js";
import { exporterOf, secureDial } from "./tls-socket.js";

/** Target address, identity, TLS settings and limits of one dial. */
export interface DialOptions extends Partial<Pick<PeerSettings, "allowPlaintext">> {
  /** Address of the listener in the directory, `host:port`. */
  readonly address: string;
  /** Sender, intended listener and channel. */
  readonly identity: HelloFields;
  /** Newest mesh secret. */
  readonly secret: Uint8Array;
  /** Credentials for TLS; without them, plaintext. Reloaded if their files have changed. */
  readonly tls?: TlsCredentials | undefined;
  /** Maximum payload of an answer in bytes. Default: no answers are accepted. */
  readonly maxAnswerBytes?: number;
  /** Aborts the attempt. No effect on an established connection. */
  readonly signal?: AbortSignal;
  /** Handlers of the established connection. Called only after the reactions of the promise have run. */
  readonly handlers: SenderHandlers;
  /** Default: the system clock. */
  readonly clock?: Clock;
}

/** Established connection with the listener's Welcome. */
export interface Dialled {
  readonly connection: SenderConnection;
  readonly welcome: Omit<Welcome, "mac">;
}

/**
 * Dials a listener.
 *
 * A Refuse is not authenticated: before a caller treats `fenced` as final, it must read the sender's epoch in Postgres.
 *
 * @throws HawserError (as a rejection)
 * - with the code of the listener's Refuse: `unauthenticated`, `wrong_peer`, `fenced`, `busy`, …
 * - `unauthenticated` if the listener does not prove that it knows the secret
 * - `unsupported_version` if the two sides have no version in common
 * - `plaintext_refused` for an address that is not loopback without TLS or `allowPlaintext`
 * - `tls_failed` if one side does not accept the other's certificate; `tls_mismatch` if only one of them uses TLS
 * - `connection_lost` if the connection cannot be made or ends early; `handshake_timeout` if it is not established
 * within `handshakeTimeoutMs`
 * - `aborted` by the signal
 * - `invalid_argument` for a malformed address, an empty secret, or names that violate the rules of Hello
 * - `protocol_violation` if the other side does not speak this protocol
 */
export async function dial(options: DialOptions): Promise<Dialled> {
  const { address, tls, allowPlaintext = false, signal } = options;
  const { host, port } = parseAddress(address);
  const allowsRemote = tls !== undefined || allowPlaintext;
  if (!allowsRemote && isIP(host) !== 0 && !isLoopback(host)) throw plaintextRefused(address);
  if (options.secret.length === 0) throw new HawserError("invalid_argument", "the mesh secret is empty");
  if (signal?.aborted) throw aborted(address, signal);
  return await new Promise(
    (resolve, reject) => new DialAttempt(options, { host, port, allowsRemote }, resolve, reject),
  );
}

class DialAttempt implements FrameReceiver {
  #socket: FrameSocket | undefined;
  #handshake: DiallerHandshake | undefined;
  #cancelOpening: () => void = () => {};
  readonly #cleanUp: () => void;
  #over = false;

  readonly #options: DialOptions;
  readonly #resolve: (dialled: Dialled) => void;
  readonly #reject: (error: HawserError) => void;

  constructor(
    options: DialOptions,
    where: Address & { readonly allowsRemote: boolean },
    resolve: (dialled: Dialled) => void,
    reject: (error: HawserError) => void,
  ) {
    this.#options = options;
    this.#resolve = resolve;
    this.#reject = reject;
    const { address, tls, signal, clock = systemClock } = options;
    const cancelTimeout = clock.setTimeout(() => {
      const { handshakeTimeoutMs } = protocolConstants;
      this.#fail(
        new HawserError("handshake_timeout", `${address} did not finish the handshake in ${handshakeTimeoutMs} ms`),
      );
    }, protocolConstants.handshakeTimeoutMs);
    const onAbort = (): void => this.#fail(aborted(address, signal));
    signal?.addEventListener("abort", onAbort);
    this.#cleanUp = () => {
      this.#over = true;
      cancelTimeout();
      signal?.removeEventListener("abort", onAbort);
    };
    const open = (): void => {
      if (this.#over) return;
      this.#cancelOpening = openSocket(
        { ...where, tls },
        {
          onOpen: (socket, exporter) => this.#begin(socket, exporter, clock),
          onFailed: (error) => this.onClosed(error),
        },
      );
    };
    if (tls === undefined) open();
    else void tls.refresh().then(open);
  }

  #begin(socket: Socket, exporter: Uint8Array, clock: Clock): void {
    const { identity, secret } = this.#options;
    this.#handshake = new DiallerHandshake({ identity, secret, nonce: randomBytes(nonceBytes), exporter });
    this.#socket = new FrameSocket({ socket, clock, receiver: this });
    this.#socket.writer.writePreamble();
  }

  onFrame(frame: ReceivedFrame): void {
    const socket = this.#socket;
    const handshake = this.#handshake;
    // Frames arrive only over a socket, for which the handshake was started.
    if (socket === undefined || handshake === undefined) return;
    try {
      switch (frame.$case) {
        case "challenge":
          socket.writer.write({ $case: "hello", value: handshake.answer(frame.value) });
          return;
        case "welcome":
          handshake.accept(frame.value);
          this.#establish(socket, frame.value);
          return;
        default:
          throw new HawserError("protocol_violation", `the listener sent ${frame.$case} during the handshake`);
      }
    } catch (error) {
      const message = "the dialler failed to answer the listener";
      socket.fail(error instanceof HawserError ? error : new HawserError("internal", message, { cause: error }));
    }
  }

  onClosed(error: HawserError | undefined): void {
    this.#cleanUp();
    const { address } = this.#options;
    this.#reject(error ?? new HawserError("connection_lost", `${address} closed the connection`));
  }

  #establish(socket: FrameSocket, { mac: _, ...welcome }: Welcome): void {
    this.#cleanUp();
    const connection = new SenderConnection(socket, welcome);
    socket.establish(senderReceiver(socket, connection, this.#options.handlers), {
      maxFrameBytesIn: (this.#options.maxAnswerBytes ?? 0) + protocolConstants.frameOverheadBytes,
      maxFrameBytesOut: welcome.maxMessageBytes + protocolConstants.frameOverheadBytes,
    });
    // Frames that arrived with the Welcome wait until the caller has the connection.
    socket.pause();
    setImmediate(() => socket.resume());
    this.#resolve({ connection, welcome });
  }

  #fail(error: HawserError): void {
    this.#cleanUp();
    this.#cancelOpening();
    this.#socket?.destroy();
    this.#reject(error);
  }
}

function aborted(address: string, signal: AbortSignal | undefined): HawserError {
  return new HawserError("aborted", `dialling ${address} was aborted`, { cause: signal?.reason });
}

/** Target address and TLS settings of one socket. */
interface SocketTarget extends Address {
  /** Credentials for TLS; undefined for plaintext. */
  readonly tls: TlsCredentials | undefined;
  /** True if host names may resolve to other machines. */
  readonly allowsRemote: boolean;
}

/** Events of {@link openSocket}. Exactly one is called, and none after a cancellation. */
interface OpenSocketEvents {
  /** @param exporter exporter value of the TLS session; empty without TLS */
  onOpen(socket: Socket, exporter: Uint8Array): void;
  /** Fails with `connection_lost`, `plaintext_refused`, `tls_failed` or `tls_mismatch`. */
  onFailed(error: HawserError): void;
}

/** Opens a socket. @returns a function that cancels the attempt; a no-op once the socket is open */
function openSocket(target: SocketTarget, events: OpenSocketEvents): () => void {
  const { host, port, tls, allowsRemote } = target;
  const raw = connect({
    host,
    port,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: protocolConstants.pingAfterMs,
    ...addressAttempts(protocolConstants.handshakeTimeoutMs),
    ...(allowsRemote ? {} : { lookup: lookupLoopback }),
  });
  let stop = follow(raw, "connect", opened, (cause) => {
    // The lookup rejected a name that resolves to another machine.
    events.onFailed(cause instanceof HawserError ? cause : connectionEnded(cause));
  });
  return () => stop();

  function opened(): void {
    if (tls === undefined) {
      events.onOpen(raw, new Uint8Array(0));
      return;
    }
    // From now on the TLS socket reports errors.
    raw.on("error", () => {});
    const secured = secureDial(raw, host, tls);
    stop = follow(
      secured,
      "secureConnect",
      () => events.onOpen(secured, exporterOf(secured)),
      (cause) => events.onFailed(dialTlsFailure(formatAddress(target), cause)),
    );
  }
}

/** Waits until the socket is ready or closed. @returns a function that destroys the socket while it is not ready */
function follow(
  socket: Socket,
  ready: "connect" | "secureConnect",
  onReady: () => void,
  onFailed: (cause: Error | undefined) => void,
): () => void {
  let over = false;
  const end = (): void => {
    over = true;
    socket.off(ready, isReady).off("error", failed).off("close", closed);
  };
  const fail = (cause: Error | undefined): void => {
    if (over) return;
    end();
    socket.on("error", () => {});
    socket.destroy();
    onFailed(cause);
  };
  const failed = (cause: Error): void => fail(cause);
  const closed = (): void => fail(undefined);
  const isReady = (): void => {
    end();
    onReady();
  };
  socket.on(ready, isReady).on("error", failed).on("close", closed);
  return () => {
    if (over) return;
    end();
    socket.on("error", () => {});
    socket.destroy();
  };
}

/** Lookup function for `net` that rejects host names which resolve to other machines, before anything is dialled. */
export const lookupLoopback: LookupFunction = (hostname, options, callback) => {
  lookup(hostname, options, (error, address, family) => {
    const found = typeof address === "string" ? [address] : (address ?? []).map((entry) => entry.address);
    if (error === null && !found.every(isLoopback)) {
      callback(plaintextRefused(`${hostname} (${found.join(", ")})`), address, family);
    } else {
      callback(error, address, family);
    }
  });
};
