/**
 * Dialling a listener: connect, prove who calls, and check who answers.
 *
 *     connecting ──▶ Challenge awaited ──▶ Welcome awaited ──▶ established
 *          └───────────────┴─── timeout, abort, error ┴──────▶ rejected
 */
import { randomBytes } from "node:crypto";
import { connect, isIP, type Socket } from "node:net";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { HawserError, TransportError } from "../errors/index.js";
import { type Frame, type HelloFields, isLoopback, parseAddress, type WelcomeFrame } from "../wire/index.js";
import { type Clock, systemClock } from "./clock.js";
import { type FrameReceiver, FrameSocket } from "./frame-socket.js";
import { DiallerHandshake, nonceBytes } from "./handshake.js";
import { lookupLoopback, plaintextRefused } from "./plaintext.js";
import { SenderConnection, type SenderHandlers, senderReceiver } from "./sender-connection.js";

/** Whom to call, and as whom. */
export interface DialOptions {
  /** `host:port` of the listener, as the catalog has it. */
  readonly address: string;
  /** Who calls, whom it means to reach, on which channel. */
  readonly identity: HelloFields;
  /** The newest mesh secret. */
  readonly secret: Uint8Array;
  /** Dial addresses other than loopback although nothing encrypts the connection. Default false. */
  readonly allowPlaintext?: boolean;
  /** Ends the attempt; no effect on an established connection. */
  readonly signal?: AbortSignal;
  /** Called for what happens once the connection is established, never before the promise's reactions have run. */
  readonly handlers: SenderHandlers;
  /** Default: the clock of this process. */
  readonly clock?: Clock;
}

/** An established connection, and what the listener said of the channel. */
export interface Dialled {
  readonly connection: SenderConnection;
  readonly welcome: Omit<WelcomeFrame, "mac">;
}

/**
 * Dials a listener.
 *
 * A refusal is not proved: before acting on `fenced` for good, look at the own epoch in the catalog.
 *
 * @throws TransportError (as a rejection)
 * - with the code of the listener's Refuse: `unauthenticated`, `wrong_peer`, `fenced`, `busy`, …
 * - `unauthenticated` if the listener does not prove that it knows the secret
 * - `unsupported_version` if the two have no version in common
 * - `plaintext_refused` for an address that is not loopback without `allowPlaintext`
 * - `connection_lost` if the connection cannot be made, or ends early; `handshake_timeout` after `handshakeTimeoutMs` for
 *   all of it
 * - `aborted` by the signal
 * - `invalid_argument` for a malformed address (a WireError), an empty secret, or names that break the rules of Hello
 * - `protocol_violation` for what is not this protocol
 */
export async function dial(options: DialOptions): Promise<Dialled> {
  const { address, allowPlaintext = false, signal } = options;
  const { host, port } = parseAddress(address);
  if (!allowPlaintext && isIP(host) !== 0 && !isLoopback(host)) throw plaintextRefused(address);
  if (options.secret.length === 0) throw new TransportError("invalid_argument", "the mesh secret is empty");
  if (signal?.aborted) throw aborted(address, signal);
  const socket = connect({
    host,
    port,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: protocolConstants.pingAfterMs,
    ...(allowPlaintext ? {} : { lookup: lookupLoopback }),
  });
  return await new Promise((resolve, reject) => new Attempt(options, socket, resolve, reject));
}

class Attempt implements FrameReceiver {
  private readonly socket: FrameSocket;
  private readonly handshake: DiallerHandshake;
  private readonly cleanUp: () => void;

  constructor(
    private readonly options: DialOptions,
    socket: Socket,
    private readonly resolve: (dialled: Dialled) => void,
    private readonly reject: (error: HawserError) => void,
  ) {
    const { address, identity, secret, signal, clock = systemClock } = options;
    this.handshake = new DiallerHandshake({
      identity,
      secret,
      nonce: randomBytes(nonceBytes),
      exporter: new Uint8Array(0),
    });
    this.socket = new FrameSocket({ socket, clock, receiver: this });
    socket.once("connect", () => socket.write(protocolConstants.preamble));
    const cancelTimeout = clock.setTimeout(() => {
      const { handshakeTimeoutMs } = protocolConstants;
      this.giveUp(
        new TransportError("handshake_timeout", `${address} did not finish the handshake in ${handshakeTimeoutMs} ms`),
      );
    }, protocolConstants.handshakeTimeoutMs);
    const onAbort = (): void => this.giveUp(aborted(address, signal));
    signal?.addEventListener("abort", onAbort);
    this.cleanUp = () => {
      cancelTimeout();
      signal?.removeEventListener("abort", onAbort);
    };
  }

  onFrame(frame: Frame): void {
    try {
      if (frame.kind === "challenge") {
        this.socket.writer.write({ kind: "hello", value: this.handshake.answer(frame.value) });
      } else if (frame.kind === "welcome") {
        this.handshake.accept(frame.value);
        this.establish(frame.value);
      } else {
        throw new TransportError("protocol_violation", `the listener sent ${frame.kind} during the handshake`);
      }
    } catch (error) {
      const message = "the dialler failed to answer the listener";
      this.socket.fail(HawserError.is(error) ? error : new TransportError("internal", message, { cause: error }));
    }
  }

  onDrain(): void {}

  onClosed(error: HawserError | undefined): void {
    this.cleanUp();
    const { address } = this.options;
    // A name that leads elsewhere was refused while it was looked up.
    if (TransportError.is(error?.cause)) this.reject(error.cause);
    else this.reject(error ?? new TransportError("connection_lost", `${address} closed the connection`));
  }

  private establish({ mac: _, ...welcome }: WelcomeFrame): void {
    this.cleanUp();
    const { socket } = this;
    const connection = new SenderConnection(socket, welcome);
    socket.establish(senderReceiver(socket, this.options.handlers), {
      maxFrameBytesIn: protocolConstants.frameOverheadBytes,
      maxFrameBytesOut: welcome.maxMessageBytes + protocolConstants.frameOverheadBytes,
    });
    // What came together with Welcome waits until whoever awaits the promise has the connection.
    socket.pause();
    setImmediate(() => socket.resume());
    this.resolve({ connection, welcome });
  }

  private giveUp(error: TransportError): void {
    this.cleanUp();
    this.socket.destroy();
    this.reject(error);
  }
}

function aborted(address: string, signal: AbortSignal | undefined): TransportError {
  return new TransportError("aborted", `dialling ${address} was aborted`, { cause: signal?.reason });
}
