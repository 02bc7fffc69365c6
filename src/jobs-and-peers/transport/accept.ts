/**
 * Accepted connection that is not authenticated yet.
 *
 *     first byte awaited ──▶ (TLS) ──▶ preamble awaited ──▶ Hello awaited ──▶ authorizing ──▶ established
 *            └─────────────────┴──────────────┴── anything else, timeout ─┴──────┴──▶ refused
 *
 * The first byte distinguishes TLS from plaintext, so that a dialler with the wrong setting gets an error that it can
 * read. Until it is authenticated, a connection costs a socket, a timer and at most two frames of
 * `maxHandshakeFrameBytes` (with TLS, a session). It ends with exactly one report.
 */
import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { type PeerSettings, protocolConstants } from "../../../generated/ts/settings/peer.js";
import { type ErrorCode, HawserError } from "../../foundation/errors/index.js";
import { type Clock, systemClock } from "../../foundation/runtime/index.js";
import type { TlsCredentials } from "../../foundation/tls/index.js";
import {
  formatAddress,
  type Hello,
  type HelloFields,
  isLoopback,
  maxPrefixedFrameBytes,
  ownCapabilities,
  type WelcomeFields,
} from "../wire/index.js";
import { ListenerConnection, type ListenerHandlers, listenerReceiver } from "./connection.js";
import { connectionEnded, plaintextRefused } from "./failures.js";
import { type FrameReceiver, FrameSocket, type ReceivedFrame } from "./frame-socket.js";
import { ListenerHandshake, nonceBytes, type VerifiedHello } from "./handshake.js";
import { exporterOf, type TlsAcceptor, tlsFirstByte } from "./tls-socket.js";

/** Failed handshake. */
export interface HandshakeRefusal {
  /** Address of the other side, `host:port`. */
  readonly remoteAddress: string;
  /** Error code, as sent to the dialler if possible. */
  readonly code: ErrorCode;
  /** Error message. Never contains a secret; may quote data of the other side. */
  readonly message: string;
  /** Local cause, if any. */
  readonly cause?: unknown;
}

/** Decision whether an authenticated sender may use its channel. */
export type Authorization =
  | { readonly accept: true; readonly welcome: WelcomeFields }
  | { readonly accept: false; readonly code: ErrorCode; readonly message: string };

/** Options of {@link listen}: address, identity, and callbacks for decisions and events. */
export interface ListenOptions
  extends Pick<PeerSettings, "maxMessageBytes">,
    Partial<Pick<PeerSettings, "allowPlaintext">> {
  /** Address to bind, `host:port`. Port 0 requests a free port. */
  readonly address: string;
  /** Name of this listener. A Hello for another name is refused. */
  readonly listenerName: string;
  /** Returns the currently valid mesh secrets. Called for each Hello; there are two during a rotation. */
  readonly secrets: () => readonly Uint8Array[];
  /**
   * Decides on an authenticated Hello for this listener. A rejection refuses it, with the code of a HawserError or
   * `internal`. An accepted sender may have disconnected before `onConnection`.
   */
  readonly authorize: (hello: HelloFields, remote: { readonly address: string }) => Promise<Authorization>;
  /**
   * Returns the handlers of an established connection; undefined if this call has refused or destroyed the connection.
   * Called right after `authorize` accepted, before any frame, with the `welcome` of `authorize`.
   */
  readonly onConnection: (connection: ListenerConnection, welcome: WelcomeFields) => ListenerHandlers | undefined;
  /** Called exactly once for each connection that ended before it was established. */
  readonly onHandshakeRefused: (refusal: HandshakeRefusal) => void;
  /** Credentials for TLS; plaintext is then refused. Reloaded when their files change. */
  readonly tls?: TlsCredentials | undefined;
  /** Default: the system clock. */
  readonly clock?: Clock;
}

/** Handshake of one accepted socket. */
export class AcceptedSocket implements FrameReceiver {
  readonly remoteAddress: string;
  /** IP address of the dialler; empty if it has already disconnected. */
  readonly remoteHost: string;
  isEstablished = false;

  readonly #clock: Clock;
  readonly #cancelTimeout: () => void;
  #frames: FrameSocket | undefined;
  #handshake: ListenerHandshake | undefined;
  /**
   * Fault of the connection itself, such as the lack of TLS. Sent after the preamble, so that the dialler can receive
   * it.
   */
  #fault: HawserError | undefined;
  #state: "opening" | "hello" | "authorizing" | "done" = "opening";

  readonly #options: ListenOptions;
  readonly #socket: Socket;
  readonly #acceptor: TlsAcceptor | undefined;
  readonly #onProved: () => void;

  /**
   * @param socket owned by this object from now on
   * @param acceptor undefined for a listener without TLS
   * @param onProved called when the dialler has proved that it knows the mesh secret
   */
  constructor(options: ListenOptions, socket: Socket, acceptor: TlsAcceptor | undefined, onProved: () => void) {
    this.#options = options;
    this.#socket = socket;
    this.#acceptor = acceptor;
    this.#onProved = onProved;
    const { clock = systemClock, allowPlaintext = false } = options;
    this.#clock = clock;
    this.remoteHost = socket.remoteAddress ?? "";
    this.remoteAddress = formatAddress({ host: this.remoteHost || "unknown", port: socket.remotePort ?? 0 });
    this.#cancelTimeout = clock.setTimeout(() => this.#timeOut(), protocolConstants.handshakeTimeoutMs);
    const trusted = acceptor !== undefined || allowPlaintext || this.remoteHost === "" || isLoopback(this.remoteHost);
    // A socket without an address is already closed, and emits `close` by itself.
    if (trusted) this.#awaitFirstByte();
    else this.#openFrames(socket).fail(plaintextRefused(this.remoteAddress));
  }

  /** Closes at once without a report, even if established. */
  destroy(): void {
    this.#cancelTimeout();
    this.#state = "done";
    this.#frames?.destroy();
    this.#socket.destroy();
  }

  /** Ends the handshake with an error, which is reported and, if possible, sent to the dialler. */
  refuse(error: HawserError): void {
    if (this.#frames !== undefined) {
      this.#frames.fail(error);
    } else {
      this.#socket.destroy();
      this.onClosed(error);
    }
  }

  onPreamble(): void {
    const frames = this.#frames;
    const handshake = this.#handshake;
    const fault = this.#fault;
    if (fault !== undefined) this.refuse(fault);
    if (frames === undefined || handshake === undefined) return;
    this.#state = "hello";
    frames.writer.write({ $case: "challenge", value: handshake.challenge() });
  }

  onFrame(frame: ReceivedFrame): void {
    if (frame.$case === "hello" && this.#state === "hello") {
      this.#state = "authorizing";
      void this.#authorize(frame.value);
    } else this.refuse(new HawserError("protocol_violation", `the dialler sent ${frame.$case} unexpectedly`));
  }

  onClosed(error: HawserError | undefined): void {
    this.#cancelTimeout();
    if (this.#state === "done") return;
    this.#state = "done";
    const { code, message, cause } = error ?? new HawserError("connection_lost", "the dialler closed the connection");
    this.#options.onHandshakeRefused({
      remoteAddress: this.remoteAddress,
      code,
      message,
      ...(cause === undefined ? {} : { cause }),
    });
  }

  #awaitFirstByte(): void {
    const socket = this.#socket;
    let socketError: Error | undefined;
    // The first error counts. Later ones are reported by the TLS or frame socket.
    socket.on("error", (error) => {
      socketError = error;
    });
    const onClose = (): void => this.onClosed(connectionEnded(socketError));
    socket.once("close", onClose);
    socket.once("data", (chunk: Buffer) => {
      if (this.#state === "done") return;
      socket.off("close", onClose);
      socket.pause();
      socket.unshift(chunk);
      this.#begin(chunk[0] === tlsFirstByte);
    });
  }

  #begin(isTls: boolean): void {
    const socket = this.#socket;
    const acceptor = this.#acceptor;
    if (isTls && acceptor !== undefined) {
      acceptor.accept(socket, {
        onSecure: (secured, fault) => {
          if (this.#state === "done") secured.destroy();
          else this.#startHandshake(secured, exporterOf(secured), fault);
        },
        onFailed: (error) => this.onClosed(error),
      });
    } else if (isTls) {
      const message = "the dialler uses TLS and this peer does not; set the option tls for this peer too, or for none";
      this.#openFrames(socket).fail(new HawserError("tls_mismatch", message), { linger: true });
    } else {
      const message = "this peer accepts only TLS; set the option tls for the dialler, too";
      const fault = acceptor && new HawserError("tls_mismatch", message);
      this.#startHandshake(socket, new Uint8Array(0), fault);
    }
  }

  #startHandshake(socket: Socket, exporter: Uint8Array, fault: HawserError | undefined): void {
    const { listenerName } = this.#options;
    this.#fault = fault;
    if (fault === undefined) {
      this.#handshake = new ListenerHandshake({ listenerName, nonce: randomBytes(nonceBytes), exporter });
    }
    this.#openFrames(socket);
  }

  #openFrames(socket: Socket): FrameSocket {
    const preamble = Buffer.from(protocolConstants.preamble);
    this.#frames = new FrameSocket({ socket, clock: this.#clock, receiver: this, preamble });
    return this.#frames;
  }

  async #authorize(hello: Hello): Promise<void> {
    const { secrets, authorize } = this.#options;
    try {
      const verified = this.#handshake!.verify(hello, secrets());
      this.#onProved();
      const decision = await authorize(fieldsOf(hello), { address: this.remoteAddress });
      if (this.#state !== "authorizing") return;
      if (!decision.accept) throw new HawserError(decision.code, decision.message);
      this.#establish(this.#frames!, verified, hello, decision.welcome);
    } catch (error) {
      // The cause is reported only locally. The other side gets code and message.
      const message = "the listener could not decide on the Hello";
      this.refuse(error instanceof HawserError ? error : new HawserError("internal", message, { cause: error }));
    }
  }

  #establish(socket: FrameSocket, verified: VerifiedHello, hello: Hello, fields: WelcomeFields): void {
    const options = this.#options;
    const { maxMessageBytes } = options;
    const welcome = this.#handshake!.welcome(verified, {
      ...fields,
      maxMessageBytes,
      capabilities: [...ownCapabilities],
    });
    socket.writer.write({ $case: "welcome", value: welcome });
    const connection = new ListenerConnection(socket, fieldsOf(hello));
    const handlers = options.onConnection(connection, fields);
    this.#cancelTimeout();
    // `onConnection` may have refused or destroyed the connection.
    if (handlers === undefined || socket.isOver) return;
    this.#state = "done";
    this.isEstablished = true;
    socket.establish(listenerReceiver(socket, connection, maxMessageBytes, handlers), {
      maxFrameBytesIn: maxMessageBytes + protocolConstants.frameOverheadBytes,
      // Each request limits its answer.
      maxFrameBytesOut: maxPrefixedFrameBytes,
    });
  }

  #timeOut(): void {
    const { handshakeTimeoutMs } = protocolConstants;
    this.refuse(
      new HawserError("handshake_timeout", `the handshake was not completed within ${handshakeTimeoutMs} ms`),
    );
  }
}

function fieldsOf({ senderName, sourceTopic, listenerName, channelId, epoch }: Hello): HelloFields {
  return { senderName, sourceTopic, listenerName, channelId, epoch };
}
