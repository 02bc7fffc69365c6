/**
 * The writing half of a connection: frames written in one tick leave in one socket write, and the writer is told when
 * the socket cannot keep up.
 */
import type { Socket } from "node:net";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { type Frame, FrameEncoder, type FrameKind, type Output, recycle } from "../wire/index.js";

/** Encoded bytes that leave at once instead of at the end of the tick: a block, so that the kernel starts early. */
const flushBytes = 256 * 1024;

/** What still leaves after Goodbye: the other side would refuse anything else. */
const afterGoodbye: ReadonlySet<FrameKind> = new Set(["ping", "pong", "refuse"]);

/**
 * Encodes frames and writes them to a socket. Never throws for a socket that has gone: what is written then is lost. So is
 * what is written after Goodbye, other than Ping, Pong and Refuse.
 */
export class SocketWriter {
  readonly #encoder = new FrameEncoder({ maxFrameBytes: protocolConstants.maxHandshakeFrameBytes });
  #flushScheduled = false;
  /** A tick has ended while the socket was busy with an earlier write: what was gathered leaves behind that. */
  #isLate = false;
  #ended = false;
  #saidGoodbye = false;
  /** False from `writeHighWaterBytes` buffered bytes on, until half of them have gone. Writing is possible all the same. */
  canWrite = true;
  #bytesInSocket = 0;
  readonly #inSocket: Output[] = [];
  /** Encoded when they leave, because a newer one makes them useless: so a reader that stalls cannot pile them up. */
  readonly #latest: Frame[] = [];

  readonly #socket: Socket;
  readonly #onDrain: () => void;

  /** @param onDrain called when {@link canWrite} turns true again */
  constructor(socket: Socket, onDrain: () => void) {
    this.#socket = socket;
    this.#onDrain = onDrain;
  }

  /** The greatest frame that the other side accepts, in bytes, without its length prefix. */
  set maxFrameBytes(bytes: number) {
    this.#encoder.maxFrameBytes = bytes;
  }

  get maxFrameBytes(): number {
    return this.#encoder.maxFrameBytes;
  }

  /** Bytes that were written here and have not reached the kernel. */
  get bufferedBytes(): number {
    return this.#encoder.bytes + this.#bytesInSocket;
  }

  /** Writes what a dialler sends before its first frame. */
  writePreamble(): void {
    this.#socket.write(protocolConstants.preamble);
  }

  /** Writes a frame. @throws HawserError as `FrameEncoder.append` */
  write(frame: Frame): void {
    if (!this.#takes(frame.$case)) return;
    if (this.#latest.length > 0) this.#encodeLatest();
    this.#encoder.append(frame);
    this.#saidGoodbye ||= frame.$case === "goodbye";
    this.#appended();
  }

  /** Writes an at-most-once message. @throws HawserError as `FrameEncoder.appendAtMostOnce` */
  writeAtMostOnce(epoch: number, topicKey: number, payload: Uint8Array): void {
    if (!this.#takes("batch")) return;
    if (this.#latest.length > 0) this.#encodeLatest();
    this.#encoder.appendAtMostOnce(epoch, topicKey, payload);
    this.#appended();
  }

  /** Writes a frame, unless a newer one of its kind replaces it before it leaves. */
  writeLatest(frame: Frame): void {
    if (!this.#takes(frame.$case)) return;
    const older = this.#latest.findIndex(({ $case }) => $case === frame.$case);
    this.#latest[older === -1 ? this.#latest.length : older] = frame;
    this.#schedule();
  }

  /** Writes what is buffered, then FIN. Later writes do nothing. */
  end(): void {
    if (this.#ended) return;
    this.#flush();
    this.#ended = true;
    this.#socket.end();
  }

  /** Forgets what is buffered. Later writes do nothing. */
  abandon(): void {
    this.#ended = true;
  }

  /** Whether a frame of this kind may still leave. */
  #takes(kind: FrameKind): boolean {
    return !this.#ended && (!this.#saidGoodbye || afterGoodbye.has(kind));
  }

  #appended(): void {
    const { bytes } = this.#encoder;
    if (bytes + this.#bytesInSocket >= protocolConstants.writeHighWaterBytes) this.canWrite = false;
    if (bytes >= flushBytes) this.#flush();
    else this.#schedule();
  }

  /**
   * The end of the tick is the event loop's check phase: what several sockets and promises lead to within one turn leaves
   * together. A microtask would be no sooner on the wire (measured), and a loop that awaits each send would
   * pay for a write each.
   */
  #schedule(): void {
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    setImmediate(this.#endOfTick);
  }

  readonly #endOfTick = (): void => {
    this.#flushScheduled = false;
    if (this.#ended) return;
    // While the socket is still busy with an earlier write, what comes is gathered: a write for each tick would keep a
    // block of memory for each.
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

  /** Writes are done in their order, so that one function serves all; one for each write would cost as much as its frame. */
  readonly #written = (error?: Error | null): void => {
    const output = this.#inSocket.shift()!;
    this.#bytesInSocket -= output.bytes;
    // Of a socket that is destroyed, the kernel may still have one.
    if (!error) recycle(output);
    if (this.#ended) return;
    if (this.#isLate && this.#inSocket.length === 0 && !this.#flushScheduled) {
      this.#isLate = false;
      this.#flush();
    }
    if (!this.canWrite && this.bufferedBytes * 2 <= protocolConstants.writeHighWaterBytes) {
      this.canWrite = true;
      this.#onDrain();
    }
  };
}
