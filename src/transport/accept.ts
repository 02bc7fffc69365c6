/**
 * A connection that was accepted and has not proved itself yet.
 *
 *     preamble awaited ──▶ Hello awaited ──▶ authorizing ──▶ established
 *            └─────────────────┴── anything else, timeout ┴──▶ refused
 *
 * Until it is established a stranger costs a socket, a timer and at most two frames of `maxHandshakeFrameBytes`; it ends
 * in exactly one report.
 */
import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { HawserError, TransportError } from "../errors/index.js";
import {
  type Frame,
  formatAddress,
  type HelloFields,
  type HelloFrame,
  isLoopback,
  ownCapabilities,
  type WelcomeFields,
} from "../wire/index.js";
import { systemClock } from "./clock.js";
import { type FrameReceiver, FrameSocket } from "./frame-socket.js";
import { ListenerHandshake, nonceBytes, type VerifiedHello } from "./handshake.js";
import type { ListenOptions } from "./listen-options.js";
import { ListenerConnection, listenerReceiver } from "./listener-connection.js";
import { plaintextRefused } from "./plaintext.js";

/** Takes one accepted socket through the handshake. */
export class AcceptedSocket implements FrameReceiver {
  readonly remoteAddress: string;

  private readonly socket: FrameSocket;
  private readonly handshake: ListenerHandshake;
  private readonly cancelTimeout: () => void;
  private state: "preamble" | "hello" | "authorizing" | "done" = "preamble";

  /**
   * @param socket belongs to this object from now on
   * @param onEstablished called when the socket has become a connection
   */
  constructor(
    private readonly options: ListenOptions,
    socket: Socket,
    private readonly onEstablished: () => void,
  ) {
    const { listenerName, clock = systemClock, allowPlaintext = false } = options;
    const host = socket.remoteAddress ?? "";
    this.remoteAddress = formatAddress({ host: host || "unknown", port: socket.remotePort ?? 0 });
    this.handshake = new ListenerHandshake({
      listenerName,
      nonce: randomBytes(nonceBytes),
      exporter: new Uint8Array(0),
    });
    this.socket = new FrameSocket({ socket, clock, receiver: this, preamble: Buffer.from(protocolConstants.preamble) });
    this.cancelTimeout = clock.setTimeout(() => this.timeOut(), protocolConstants.handshakeTimeoutMs);
    // A socket without an address has been closed already, and says so itself.
    if (!allowPlaintext && host !== "" && !isLoopback(host)) this.socket.fail(plaintextRefused(this.remoteAddress));
  }

  /** Closes at once, established or not, without a report. */
  destroy(): void {
    this.cancelTimeout();
    this.socket.destroy();
  }

  onPreamble(): void {
    this.state = "hello";
    this.socket.writer.write({ kind: "challenge", value: this.handshake.challenge() });
  }

  onFrame(frame: Frame): void {
    if (this.state === "hello" && frame.kind === "hello") {
      this.state = "authorizing";
      void this.authorize(frame.value);
    } else {
      this.socket.fail(new TransportError("protocol_violation", `the dialler sent ${frame.kind} out of turn`));
    }
  }

  onDrain(): void {}

  onClosed(error: HawserError | undefined): void {
    this.cancelTimeout();
    this.state = "done";
    const { code, message, cause } =
      error ?? new TransportError("connection_lost", "the dialler closed the connection");
    this.options.onHandshakeRefused({
      remoteAddress: this.remoteAddress,
      code,
      message,
      ...(cause === undefined ? {} : { cause }),
    });
  }

  private async authorize(hello: HelloFrame): Promise<void> {
    const { secrets, authorize } = this.options;
    try {
      const verified = this.handshake.verify(hello, secrets());
      const fields = fieldsOf(hello);
      const decision = await authorize(fields, { address: this.remoteAddress });
      if (this.state !== "authorizing") return;
      if (!decision.accept) throw new TransportError(decision.code, decision.message);
      this.establish(verified, fields, decision.welcome);
    } catch (error) {
      // The cause is for this side's report; the other side gets code and message.
      const message = "the listener could not decide on the Hello";
      this.socket.fail(HawserError.is(error) ? error : new TransportError("internal", message, { cause: error }));
    }
  }

  private establish(verified: VerifiedHello, hello: HelloFields, fields: WelcomeFields): void {
    const { socket, options, remoteAddress } = this;
    const { maxMessageBytes } = options;
    const welcome = this.handshake.welcome(verified, { ...fields, maxMessageBytes, capabilities: ownCapabilities });
    socket.writer.write({ kind: "welcome", value: welcome });
    const handlers = options.onConnection(new ListenerConnection(socket, hello, remoteAddress), hello);
    this.cancelTimeout();
    // Whoever makes the handlers may have refused or destroyed the connection already.
    if (socket.isOver) return;
    this.state = "done";
    socket.establish(listenerReceiver(socket, hello, maxMessageBytes, handlers), {
      maxFrameBytesIn: maxMessageBytes + protocolConstants.frameOverheadBytes,
      maxFrameBytesOut: protocolConstants.frameOverheadBytes,
    });
    this.onEstablished();
  }

  private timeOut(): void {
    const { handshakeTimeoutMs } = protocolConstants;
    this.socket.fail(new TransportError("handshake_timeout", `no handshake was done in ${handshakeTimeoutMs} ms`));
  }
}

function fieldsOf({ senderName, sourceTopic, listenerName, connectionKey, epoch }: HelloFrame): HelloFields {
  return { senderName, sourceTopic, listenerName, connectionKey, epoch };
}
