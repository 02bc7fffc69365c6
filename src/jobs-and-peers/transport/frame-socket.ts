/**
 * Frames over one socket, for both ends of a connection, during the handshake and after it.
 *
 *     open ── end() ──▶ ending ──▶ closed      written bytes leave, then FIN; frames still arrive
 *     open ── fail() ─▶ failed ──▶ closed      a Refuse leaves; arriving bytes are discarded
 *     any ─ destroy() ▶ closed                 at once, without further calls of the receiver
 *
 * The receiver is notified of the end exactly once, as its last call: when the socket has closed, or earlier when the
 * connection fails.
 */
import type { Socket } from "node:net";
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { HawserError } from "../../foundation/errors/index.js";
import type { Clock } from "../../foundation/runtime/index.js";
import { type Frame, FrameDecoder } from "../wire/index.js";
import { connectionEnded, errorOfRefuse, refuseOf } from "./failures.js";
import { Liveness } from "./liveness.js";
import { readSocket } from "./socket-reads.js";
import { SocketWriter } from "./socket-writer.js";

/** Frames passed to the receiver. {@link FrameSocket} handles the others itself. */
export type ReceivedFrame = Exclude<Frame, { $case: "refuse" | "ping" | "pong" }>;

/** Receiver of a {@link FrameSocket}. Called synchronously; may call back into the socket. */
export interface FrameReceiver {
  /** Called when the expected preamble has arrived. */
  onPreamble?(): void;
  /** Called for each frame. */
  onFrame(frame: ReceivedFrame): void;
  /** Called when `writer.canWrite` has become true again. */
  onDrain?(): void;
  /** Called last, when the connection has ended. @param error undefined after a graceful end */
  onClosed(error: HawserError | undefined): void;
}

/** Options of {@link FrameSocket}. */
export interface FrameSocketOptions {
  /** Owned by the FrameSocket from now on. */
  readonly socket: Socket;
  readonly clock: Clock;
  readonly receiver: FrameReceiver;
  /** Bytes that the other side must send first. */
  readonly preamble?: Uint8Array;
}

/** Socket that exchanges frames: handshake frames until {@link establish}, then all others. */
export class FrameSocket {
  readonly writer: SocketWriter;
  /** True after a Goodbye of the other side or an end by this side: the close of the connection is then no error. */
  isClosingGracefully = false;

  readonly #socket: Socket;
  readonly #clock: Clock;
  readonly #decoder: FrameDecoder;
  readonly #liveness: Liveness;
  #receiver: FrameReceiver;
  #state: "open" | "ending" | "failed" | "closed" = "open";
  #established = false;
  #paused = false;
  #pumping = false;
  #reported = false;
  #socketError: Error | undefined;

  constructor({ socket, clock, receiver, preamble }: FrameSocketOptions) {
    this.#socket = readSocket(socket, this.#read);
    this.#clock = clock;
    this.#receiver = receiver;
    this.#decoder = new FrameDecoder({
      maxFrameBytes: protocolConstants.maxHandshakeFrameBytes,
      ...(preamble === undefined ? {} : { preamble }),
    });
    this.writer = new SocketWriter(this.#socket, () => this.#receiver.onDrain?.());
    this.#liveness = new Liveness(clock, {
      ping: () => this.writer.write({ $case: "ping", value: { token: "0" } }),
      dead: (silentMs) => this.#lose(`no data arrived for ${Math.round(silentMs)} ms, not even an answer to a ping`),
    });
    this.#socket.on("error", (error) => {
      this.#socketError = error;
    });
    this.#socket.on("close", () => this.#closed());
  }

  /** True if the connection has failed or is closed. */
  get isOver(): boolean {
    return this.#state === "failed" || this.#state === "closed";
  }

  /**
   * Completes the handshake: frames now go to `receiver`, pings are sent and answered, and the limits of both sides
   * apply.
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

  /** Stops reading: no frame is delivered until {@link resume}, and the other side experiences backpressure. */
  pause(): void {
    if (this.#paused || this.#state === "closed") return;
    this.#paused = true;
    this.#socket.pause();
    this.#liveness.setPaused(true);
  }

  /** Resumes reading. Frames are delivered in a later microtask, never within this call. */
  resume(): void {
    if (!this.#paused || this.#state === "closed") return;
    this.#paused = false;
    this.#liveness.setPaused(false);
    this.#socket.resume();
    queueMicrotask(() => this.#pump());
  }

  /** Writes the buffered bytes, then FIN. `onClosed` is called when the other side has closed too. */
  end(): void {
    if (this.#state !== "open") return;
    this.#state = "ending";
    this.isClosingGracefully = true;
    this.writer.end();
  }

  /**
   * Ends the connection with an error, which is sent in a Refuse and passed to `onClosed`.
   *
   * @param linger true to read and discard bytes that still arrive. Default: true after {@link establish}
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
    this.#report(error);
  }

  /** Closes at once and discards the buffered bytes, without further calls of the receiver, not even `onClosed`. */
  destroy(): void {
    this.#reported = true;
    this.#close();
  }

  readonly #read = (bytes: Uint8Array): void => {
    this.#liveness.bytesArrived();
    for (let at = 0; at < bytes.length && !this.isOver; ) {
      // Bytes of an unauthenticated peer are decoded piece by piece, before more of them are buffered.
      const end = this.#established ? bytes.length : at + protocolConstants.maxHandshakeFrameBytes;
      this.#decoder.push(at === 0 && end >= bytes.length ? bytes : bytes.subarray(at, end));
      this.#pump();
      at = end;
    }
  };

  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      // After a close, the decoder has no bytes, and returns undefined.
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
        this.#report(errorOfRefuse(frame.value));
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

  /**
   * Reads and discards arriving bytes. Closing with unread bytes would reset the connection, and the Refuse would be
   * lost.
   */
  #linger(): void {
    this.#paused = false;
    this.#socket.resume();
    const cancel = this.#clock.setTimeout(() => this.#close(), protocolConstants.handshakeTimeoutMs);
    this.#socket.once("close", cancel);
  }

  #lose(message: string): void {
    this.#close();
    this.#report(new HawserError("connection_lost", message));
  }

  #close(): void {
    this.#state = "closed";
    this.#liveness.stop();
    this.#decoder.clear();
    this.writer.discard();
    this.#socket.destroy();
  }

  #closed(): void {
    this.#close();
    if (this.isClosingGracefully) this.#report(undefined);
    else this.#report(connectionEnded(this.#socketError));
  }

  #report(error: HawserError | undefined): void {
    if (this.#reported) return;
    this.#reported = true;
    this.#receiver.onClosed(error);
  }
}
