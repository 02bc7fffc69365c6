/**
 * A connection that was accepted and has not proved itself yet.
 *
 *     first byte awaited ──▶ (TLS) ──▶ preamble awaited ──▶ Hello awaited ──▶ authorizing ──▶ established
 *            └─────────────────┴──────────────┴── anything else, timeout ─┴──────┴──▶ refused
 *
 * The first byte tells TLS from plaintext, so that a dialler who speaks the other one is told so in its own language.
 * Until it has proved itself a stranger costs a socket, a timer and at most two frames of `maxHandshakeFrameBytes` (with
 * TLS, a session); it ends in exactly one report.
 */
import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { type PeerSettings, protocolConstants } from "../../generated/ts/settings/peer.js";
import { type ErrorCode, HawserError } from "../errors/index.js";
import { type Clock, systemClock } from "../runtime/index.js";
import {
  formatAddress,
  greatestFrameBytes,
  type Hello,
  type HelloFields,
  isLoopback,
  ownCapabilities,
  type WelcomeFields,
} from "../wire/index.js";
import { ListenerConnection, type ListenerHandlers, listenerReceiver } from "./connection.js";
import { connectionEnded, plaintextRefused } from "./failures.js";
import { type FrameReceiver, FrameSocket, type ReceivedFrame } from "./frame-socket.js";
import { ListenerHandshake, nonceBytes, type VerifiedHello } from "./handshake.js";
import type { TlsCredentials } from "./tls-credentials.js";
import { exporterOf, type TlsAcceptor, tlsFirstByte } from "./tls-socket.js";

/** A handshake that failed. */
export interface HandshakeRefusal {
  /** `host:port` of the other side. */
  readonly remoteAddress: string;
  /** Why, as it was told (if it could be). */
  readonly code: ErrorCode;
  /** Why, in words. Never a secret; may quote what the other side sent. */
  readonly message: string;
  /** What led to it, where that was on this side. */
  readonly cause?: unknown;
}

/** Whether a sender that has proved itself may come in on its channel. */
export type Authorization =
  | { readonly accept: true; readonly welcome: WelcomeFields }
  | { readonly accept: false; readonly code: ErrorCode; readonly message: string };

/** Where to listen, as whom, and who decides. */
export interface ListenOptions
  extends Pick<PeerSettings, "maxMessageBytes">,
    Partial<Pick<PeerSettings, "allowPlaintext">> {
  /** `host:port`; port 0 takes a free one. */
  readonly address: string;
  /** This listener's name: a Hello for another is refused. */
  readonly listenerName: string;
  /** The mesh secrets valid now, asked for each Hello: two while one is rotated. */
  readonly secrets: () => readonly Uint8Array[];
  /**
   * Decides on a Hello that has proved itself and is meant for this listener. A rejection refuses it, with the code of a
   * HawserError or `internal`. Nothing is owed to an accepted sender before `onConnection`: it may have gone by then.
   */
  readonly authorize: (hello: HelloFields, remote: { readonly address: string }) => Promise<Authorization>;
  /**
   * A connection is established: its handlers, please; undefined if it was refused or destroyed. Called as soon as `authorize`
   * has accepted, before any frame, with the `welcome` that `authorize` gave.
   */
  readonly onConnection: (connection: ListenerConnection, welcome: WelcomeFields) => ListenerHandlers | undefined;
  /** A connection ended before it was established: exactly once for each. */
  readonly onHandshakeRefused: (refusal: HandshakeRefusal) => void;
  /** Accept nothing but TLS, with this certificate; read anew when its files change. */
  readonly tls?: TlsCredentials | undefined;
  /** Default: the clock of this process. */
  readonly clock?: Clock;
}

/** Takes one accepted socket through the handshake. */
export class AcceptedSocket implements FrameReceiver {
  readonly remoteAddress: string;
  /** The dialler's IP address; empty if it has gone already. */
  readonly remoteHost: string;
  isEstablished = false;

  readonly #clock: Clock;
  readonly #cancelTimeout: () => void;
  #frames: FrameSocket | undefined;
  #handshake: ListenerHandshake | undefined;
  /** What is wrong with how the dialler came; told when it has sent its preamble, so that it hears of it. */
  #fault: HawserError | undefined;
  #state: "opening" | "hello" | "authorizing" | "done" = "opening";

  readonly #options: ListenOptions;
  readonly #socket: Socket;
  readonly #acceptor: TlsAcceptor | undefined;
  readonly #onProved: () => void;

  /**
   * @param socket belongs to this object from now on
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
    // A socket without an address has been closed already, and says so itself.
    if (trusted) this.#awaitFirstByte();
    else this.#speak(socket).fail(plaintextRefused(this.remoteAddress));
  }

  /** Closes at once, established or not, without a report. */
  destroy(): void {
    this.#cancelTimeout();
    this.#state = "done";
    this.#frames?.destroy();
    this.#socket.destroy();
  }

  /** Ends the handshake: the dialler is told why, as far as it can be, and it is reported. */
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
    } else this.refuse(new HawserError("protocol_violation", `the dialler sent ${frame.$case} out of turn`));
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
    // The first cause counts; later ones, once TLS or frames are spoken, are told there, too.
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

  #begin(speaksTls: boolean): void {
    const socket = this.#socket;
    const acceptor = this.#acceptor;
    if (speaksTls && acceptor !== undefined) {
      acceptor.accept(socket, {
        onSecure: (secured, fault) => {
          if (this.#state === "done") secured.destroy();
          else this.#shakeHands(secured, exporterOf(secured), fault);
        },
        onFailed: (error) => this.onClosed(error),
      });
    } else if (speaksTls) {
      const message = "the dialler speaks TLS and this peer does not; give the option tls to this peer too, or to none";
      this.#speak(socket).fail(new HawserError("tls_mismatch", message), { linger: true });
    } else {
      const message = "this peer accepts nothing but TLS; give the option tls to the dialler, too";
      const fault = acceptor && new HawserError("tls_mismatch", message);
      this.#shakeHands(socket, new Uint8Array(0), fault);
    }
  }

  #shakeHands(socket: Socket, exporter: Uint8Array, fault: HawserError | undefined): void {
    const { listenerName } = this.#options;
    this.#fault = fault;
    if (fault === undefined) {
      this.#handshake = new ListenerHandshake({ listenerName, nonce: randomBytes(nonceBytes), exporter });
    }
    this.#speak(socket);
  }

  #speak(socket: Socket): FrameSocket {
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
      // The cause is for this side's report; the other side gets code and message.
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
    // The maker of the handlers may have refused or destroyed the connection already.
    if (handlers === undefined || socket.isOver) return;
    this.#state = "done";
    this.isEstablished = true;
    socket.establish(listenerReceiver(socket, hello, maxMessageBytes, handlers), {
      maxFrameBytesIn: maxMessageBytes + protocolConstants.frameOverheadBytes,
      // Each request says how long its answer may be.
      maxFrameBytesOut: greatestFrameBytes,
    });
  }

  #timeOut(): void {
    const { handshakeTimeoutMs } = protocolConstants;
    this.refuse(new HawserError("handshake_timeout", `no handshake was done in ${handshakeTimeoutMs} ms`));
  }
}

function fieldsOf({ senderName, sourceTopic, listenerName, connectionKey, epoch }: Hello): HelloFields {
  return { senderName, sourceTopic, listenerName, connectionKey, epoch };
}
