/** Writing half of a connection. Frames written in the same tick leave in one socket write. Reports backpressure. */
import type { Socket } from "node:net";
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { type Frame, FrameEncoder, type FrameKind, type Output, recycle } from "../wire/index.js";

/** Bytes buffered for a socket at which its connection reports backpressure, until half of them have left. */
export const writeHighWaterBytes = 1024 * 1024;

/**
 * Threshold of encoded bytes at which they are written at once instead of at the end of the tick: the kernel can then
 * start to send.
 */
const flushBytes = 256 * 1024;

/** Frames that may follow a Goodbye. The other side would reject any other. */
const afterGoodbye: ReadonlySet<FrameKind> = new Set(["ping", "pong", "refuse"]);

/**
 * Encodes frames and writes them to a socket. Writes to a closed socket are lost without an error. So are frames after
 * Goodbye, except Ping, Pong and Refuse.
 */
export class SocketWriter {
  readonly #encoder = new FrameEncoder({ maxFrameBytes: protocolConstants.maxHandshakeFrameBytes });
  #flushScheduled = false;
  /** True if a tick ended while the socket was busy: its frames leave after the pending write. */
  #isLate = false;
  #ended = false;
  #goodbyeSent = false;
  /** False from `writeHighWaterBytes` buffered bytes until half of them have left. Writing remains possible. */
  canWrite = true;
  #bytesInSocket = 0;
  readonly #inSocket: Output[] = [];
  /**
   * Latest frames by kind, which a newer frame replaces. Encoded when they leave, so that they cannot pile up while the
   * reader stalls.
   */
  readonly #latest: Frame[] = [];

  readonly #socket: Socket;
  readonly #onDrain: () => void;

  /** @param onDrain called when {@link canWrite} becomes true again */
  constructor(socket: Socket, onDrain: () => void) {
    this.#socket = socket;
    this.#onDrain = onDrain;
  }

  /** Maximum frame size of the other side in bytes, without the length prefix. */
  set maxFrameBytes(bytes: number) {
    this.#encoder.maxFrameBytes = bytes;
  }

  get maxFrameBytes(): number {
    return this.#encoder.maxFrameBytes;
  }

  /** Bytes that were written but have not reached the kernel. */
  get bufferedBytes(): number {
    return this.#encoder.bytes + this.#bytesInSocket;
  }

  /** Writes the preamble, which precedes the dialler's first frame. */
  writePreamble(): void {
    this.#socket.write(protocolConstants.preamble);
  }

  /** Writes a frame. @throws HawserError as `FrameEncoder.append` */
  write(frame: Frame): void {
    if (!this.#canSend(frame.$case)) return;
    if (this.#latest.length > 0) this.#encodeLatest();
    this.#encoder.append(frame);
    this.#goodbyeSent ||= frame.$case === "goodbye";
    this.#appended();
  }

  /** Writes an at-most-once message. @throws HawserError as `FrameEncoder.appendAtMostOnce` */
  writeAtMostOnce(epoch: number, topicId: number, payload: Uint8Array): void {
    if (!this.#canSend("batch")) return;
    if (this.#latest.length > 0) this.#encodeLatest();
    this.#encoder.appendAtMostOnce(epoch, topicId, payload);
    this.#appended();
  }

  /** Writes a frame, replacing an unsent frame of its kind. */
  writeLatest(frame: Frame): void {
    if (!this.#canSend(frame.$case)) return;
    const older = this.#latest.findIndex(({ $case }) => $case === frame.$case);
    this.#latest[older === -1 ? this.#latest.length : older] = frame;
    this.#schedule();
  }

  /** Writes the buffered bytes, then FIN. Later writes are ignored. */
  end(): void {
    if (this.#ended) return;
    this.#flush();
    this.#ended = true;
    this.#socket.end();
  }

  /** Discards the buffered bytes. Later writes are ignored. */
  discard(): void {
    this.#ended = true;
  }

  /** Returns true if a frame of this kind may still be sent. */
  #canSend(kind: FrameKind): boolean {
    return !this.#ended && (!this.#goodbyeSent || afterGoodbye.has(kind));
  }

  #appended(): void {
    const { bytes } = this.#encoder;
    if (bytes + this.#bytesInSocket >= writeHighWaterBytes) this.canWrite = false;
    if (bytes >= flushBytes) this.#flush();
    else this.#schedule();
  }

  /**
   * Schedules a flush in the check phase of the event loop, so that frames caused by several sockets and promises in
   * one turn leave together. A microtask would not be faster on the wire (measured), and a loop that awaits each send
   * would cost a write per send.
   */
  #schedule(): void {
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    setImmediate(this.#endOfTick);
  }

  readonly #endOfTick = (): void => {
    this.#flushScheduled = false;
    if (this.#ended) return;
    // Frames are collected while the socket is busy, because a write per tick would hold a block of memory per tick.
    this.#isLate = this.#inSocket.length > 0;
    if (!this.#isLate) this.#flush();
  };

  #encodeLatest(): void {
    for (const frame of this.#latest.splice(0)) this.#encoder.append(frame);
  }

  #flush(): void {
    if (this.#latest.length > 0) this.#encodeLatest();
    if (this.#encoder.bytes === 0) return;
    const output = this.#encoder.take();
    this.#bytesInSocket += output.bytes;
    this.#inSocket.push(output);
    const { chunks } = output;
    const last = chunks.length - 1;
    if (last > 0) this.#socket.cork();
    for (let i = 0; i < last; i++) this.#socket.write(chunks[i]!);
    this.#socket.write(chunks[last]!, this.#written);
    if (last > 0) this.#socket.uncork();
  }

  /**
   * Completion callback, shared by all writes, which complete in order. A closure per write would cost as much as its
   * frame.
   */
  readonly #written = (error?: Error | null): void => {
    const output = this.#inSocket.shift()!;
    this.#bytesInSocket -= output.bytes;
    // The kernel may still use the blocks of a destroyed socket.
    if (!error) recycle(output);
    if (this.#ended) return;
    if (this.#isLate && this.#inSocket.length === 0 && !this.#flushScheduled) {
      this.#isLate = false;
      this.#flush();
    }
    if (!this.canWrite && this.bufferedBytes * 2 <= writeHighWaterBytes) {
      this.canWrite = true;
      this.#onDrain();
    }
  };
}
