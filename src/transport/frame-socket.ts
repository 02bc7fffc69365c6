/**
 * Frames over one socket: what both ends of a connection share, during the handshake and after it.
 *
 *     open ── end() ──▶ ending ──▶ closed      what was written leaves, then FIN; frames still come
 *     open ── fail() ─▶ failed ──▶ closed      a Refuse leaves; what comes is thrown away
 *     any ─ destroy() ▶ closed                 at once, and the receiver hears of nothing any more
 *
 * The receiver hears of the end exactly once, last: when the socket has closed, or already when the connection fails.
 */
import type { Socket } from "node:net";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { HawserError } from "../errors/index.js";
import type { Clock } from "../runtime/index.js";
import { type Frame, FrameDecoder } from "../wire/index.js";
import { connectionEnded, errorOfRefuse, refuseOf } from "./failures.js";
import { Liveness } from "./liveness.js";
import { readSocket } from "./socket-reads.js";
import { SocketWriter } from "./socket-writer.js";

/** The frames that a {@link FrameSocket} hands on: it deals with the others itself. */
export type ReceivedFrame = Exclude<Frame, { $case: "refuse" | "ping" | "pong" }>;

/** Who gets what comes over a {@link FrameSocket}. Called synchronously; may call back into the socket. */
export interface FrameReceiver {
  /** The preamble came, where one is expected. */
  onPreamble?(): void;
  /** A frame came. */
  onFrame(frame: ReceivedFrame): void;
  /** `writer.canWrite` was false and is true again. */
  onDrain?(): void;
  /** The connection ended: undefined if in good order. Last. */
  onClosed(error: HawserError | undefined): void;
}

/** What a {@link FrameSocket} is made of. */
export interface FrameSocketOptions {
  /** Belongs to the FrameSocket from now on. */
  readonly socket: Socket;
  readonly clock: Clock;
  readonly receiver: FrameReceiver;
  /** What must come first from the other side. */
  readonly preamble?: Uint8Array;
}

/** A socket that speaks frames: in the handshake until {@link establish}, then established. */
export class FrameSocket {
  readonly writer: SocketWriter;
  /** The other side has said Goodbye, or this one has ended: that the connection closes then is no error. */
  endsInGoodOrder = false;

  readonly #socket: Socket;
  readonly #clock: Clock;
  readonly #decoder: FrameDecoder;
  readonly #liveness: Liveness;
  #receiver: FrameReceiver;
  #state: "open" | "ending" | "failed" | "closed" = "open";
  #established = false;
  #paused = false;
  #pumping = false;
  #told = false;
  #socketError: Error | undefined;

  constructor({ socket, clock, receiver, preamble }: FrameSocketOptions) {
    this.#socket = readSocket(socket, (bytes) => this.#read(bytes));
    this.#clock = clock;
    this.#receiver = receiver;
    this.#decoder = new FrameDecoder({
      maxFrameBytes: protocolConstants.maxHandshakeFrameBytes,
      ...(preamble === undefined ? {} : { preamble }),
    });
    this.writer = new SocketWriter(this.#socket, () => this.#receiver.onDrain?.());
    this.#liveness = new Liveness(clock, {
      ping: () => this.writer.write({ $case: "ping", value: { token: "0" } }),
      dead: (silentMs) => this.#lose(`nothing was heard for ${Math.round(silentMs)} ms, not even the answer to a ping`),
    });
    this.#socket.on("error", (error) => {
      this.#socketError = error;
    });
    this.#socket.on("close", () => this.#closed());
  }

  /** The connection failed, was destroyed, or the other side has gone. */
  get isOver(): boolean {
    return this.#state === "failed" || this.#state === "closed";
  }

  /**
   * The handshake is done: from here on frames go to `receiver`, pings are sent and answered, and the limits are those of
   * the two sides.
   */
  establish(
    receiver: FrameReceiver,
    limits: { readonly maxFrameBytesIn: number; readonly maxFrameBytesOut: number },
  ): void {
    this.#receiver = receiver;
    this.#established = true;
    this.#decoder.maxFrameBytes = limits.maxFrameBytesIn;
    this.writer.maxFrameBytes = limits.maxFrameBytesOut;
    this.#liveness.start();
  }

  /** Stops reading: no frame is delivered until {@link resume}, and the other side will feel it. */
  pause(): void {
    if (this.#paused || this.#state === "closed") return;
    this.#paused = true;
    this.#socket.pause();
    this.#liveness.setPaused(true);
  }

  /** Reads on. Frames are delivered in a later microtask, never within this call. */
  resume(): void {
    if (!this.#paused || this.#state === "closed") return;
    this.#paused = false;
    this.#liveness.setPaused(false);
    this.#socket.resume();
    queueMicrotask(() => this.#pump());
  }

  /** Writes what is buffered, then FIN. The receiver hears `onClosed` when the other side has closed too. */
  end(): void {
    if (this.#state !== "open") return;
    this.#state = "ending";
    this.endsInGoodOrder = true;
    this.writer.end();
  }

  /**
   * Ends the connection for a reason that the other side is told in a Refuse, and the receiver in `onClosed`.
   *
   * @param linger what the other side still sends is read and thrown away. Default: once established
   */
  fail(error: HawserError, { linger = this.#established }: { readonly linger?: boolean } = {}): void {
    if (this.isOver) return;
    this.#liveness.stop();
    if (this.#state === "open") this.writer.write({ $case: "refuse", value: refuseOf(error) });
    this.#state = "failed";
    this.#decoder.clear();
    this.writer.end();
    if (linger) this.#linger();
    else this.#socket.destroySoon();
    this.#tell(error);
  }

  /** Closes at once. What is buffered is lost, and the receiver hears nothing any more, not even `onClosed`. */
  destroy(): void {
    this.#told = true;
    this.#close();
  }

  #read(bytes: Uint8Array): void {
    this.#liveness.heard();
    for (let at = 0; at < bytes.length && !this.isOver; ) {
      // What a stranger sends is looked at before more of it is taken.
      const end = this.#established ? bytes.length : at + protocolConstants.maxHandshakeFrameBytes;
      this.#decoder.push(at === 0 && end >= bytes.length ? bytes : bytes.subarray(at, end));
      this.#pump();
      at = end;
    }
  }

  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      // One that is over has nothing more: what has come is forgotten.
      while (!this.#paused) {
        const awaitedPreamble = !this.#established && this.#decoder.awaitsPreamble;
        let frame: Frame | undefined;
        try {
          frame = this.#decoder.next();
        } catch (error) {
          if (!(error instanceof HawserError)) throw error;
          this.fail(error);
          return;
        }
        if (awaitedPreamble && !this.#decoder.awaitsPreamble) this.#receiver.onPreamble?.();
        if (frame === undefined) return;
        this.#dispatch(frame);
      }
    } finally {
      this.#pumping = false;
    }
  }

  #dispatch(frame: Frame): void {
    switch (frame.$case) {
      case "refuse":
        this.#close();
        this.#tell(errorOfRefuse(frame.value));
        return;
      case "ping":
      case "pong":
        if (!this.#established) {
          const message = `the other side sent ${frame.$case} during the handshake`;
          this.fail(new HawserError("protocol_violation", message));
        } else if (frame.$case === "ping") this.writer.writeLatest({ $case: "pong", value: frame.value });
        return;
      default:
        this.#receiver.onFrame(frame);
    }
  }

  /** Closing with bytes unread would reset the connection and the Refuse with it: what comes is read and thrown away. */
  #linger(): void {
    this.#paused = false;
    this.#socket.resume();
    const cancel = this.#clock.setTimeout(() => this.#close(), protocolConstants.handshakeTimeoutMs);
    this.#socket.once("close", cancel);
  }

  #lose(message: string): void {
    this.#close();
    this.#tell(new HawserError("connection_lost", message));
  }

  #close(): void {
    this.#state = "closed";
    this.#liveness.stop();
    this.#decoder.clear();
    this.writer.abandon();
    this.#socket.destroy();
  }

  #closed(): void {
    this.#close();
    if (this.endsInGoodOrder) this.#tell(undefined);
    else this.#tell(connectionEnded(this.#socketError));
  }

  #tell(error: HawserError | undefined): void {
    if (this.#told) return;
    this.#told = true;
    this.#receiver.onClosed(error);
  }
}
