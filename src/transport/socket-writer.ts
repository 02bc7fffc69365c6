/**
 * The writing half of a connection: frames written in one tick leave in one socket write, and the writer is told when
 * the socket cannot keep up.
 */
import type { Socket } from "node:net";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import {
  type Ack,
  type Batch,
  checkFrame,
  type Frame,
  FrameEncoder,
  type Output,
  type Pong,
  recycle,
} from "../wire/index.js";

/** Encoded bytes that leave at once instead of at the end of the tick: a block, so that the kernel starts early. */
const flushBytes = 256 * 1024;

/**
 * Encodes frames and writes them to a socket. Never throws for a socket that has gone: what is written then is lost. So is
 * what is written after Goodbye, which the other side would refuse; only Ping, Pong and Refuse leave then.
 */
export class SocketWriter {
  readonly #encoder = new FrameEncoder({ maxFrameBytes: protocolConstants.maxHandshakeFrameBytes });
  #flushScheduled = false;
  #ended = false;
  #saidGoodbye = false;
  #blocked = false;
  #bytesInSocket = 0;
  readonly #inSocket: Output[] = [];
  /** Encoded when they leave, because a newer one makes them useless: so a reader that stalls cannot pile them up. */
  #latestAck: Ack | undefined;
  #latestPong: Pong | undefined;

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

  /** False from `writeHighWaterBytes` buffered bytes on, until half of them have gone. Writing is possible all the same. */
  get canWrite(): boolean {
    return !this.#blocked;
  }

  /** Writes a frame. @throws WireError as `FrameEncoder.append` */
  write(frame: Frame): void {
    if (this.#ended) return;
    if (this.#saidGoodbye && frame.$case !== "ping" && frame.$case !== "refuse") return;
    this.#encodeLatest();
    this.#encoder.append(frame);
    this.#saidGoodbye ||= frame.$case === "goodbye";
    this.#appended();
  }

  /** Writes a Batch frame. @throws WireError as `FrameEncoder.appendBatch` */
  writeBatch(batch: Batch): void {
    if (this.#ended || this.#saidGoodbye) return;
    this.#encoder.appendBatch(batch);
    this.#appended();
  }

  /** Writes an Ack, unless a newer one replaces it before it leaves. @throws WireError as `FrameEncoder.append` */
  writeAck(ack: Ack): void {
    if (this.#ended || this.#saidGoodbye) return;
    // Now, when the caller who made a mistake can still hear of it.
    checkFrame({ $case: "ack", value: ack });
    this.#latestAck = ack;
    this.#schedule();
  }

  /** Writes a Pong, unless a newer one replaces it before it leaves. */
  writePong(pong: Pong): void {
    if (this.#ended) return;
    this.#latestPong = pong;
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

  #appended(): void {
    if (this.bufferedBytes >= protocolConstants.writeHighWaterBytes) this.#blocked = true;
    if (this.#encoder.bytes >= flushBytes) this.#flush();
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
    // While the socket is still busy with an earlier write, what comes is gathered: a write for each tick would keep a
    // block of memory for each.
    if (!this.#ended && this.#inSocket.length === 0) this.#flush();
  };

  #encodeLatest(): void {
    const latestAck = this.#latestAck;
    const latestPong = this.#latestPong;
    this.#latestAck = undefined;
    this.#latestPong = undefined;
    if (latestAck !== undefined) this.#encoder.append({ $case: "ack", value: latestAck });
    if (latestPong !== undefined) this.#encoder.append({ $case: "pong", value: latestPong });
  }

  #flush(): void {
    this.#encodeLatest();
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
  readonly #written = (): void => {
    const output = this.#inSocket.shift()!;
    this.#bytesInSocket -= output.bytes;
    recycle(output);
    if (this.#ended) return;
    if (this.#inSocket.length === 0 && !this.#flushScheduled) this.#flush();
    if (this.#blocked && this.bufferedBytes * 2 <= protocolConstants.writeHighWaterBytes) {
      this.#blocked = false;
      this.#onDrain();
    }
  };
}
