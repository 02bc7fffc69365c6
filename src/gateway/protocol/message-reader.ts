/**
 * Takes apart what a client sends: startup packets, which have no type, and messages, which have one.
 *
 *     startup packet:  u32 length of all of it, body
 *     message:         u8 type, u32 length of what follows the type, body
 *
 * Survives any split of its input, and holds what has arrived, never what was declared. Every `read…` takes nothing and
 * says so while its part is not there yet.
 */
import { ByteQueue } from "../../runtime/index.js";

const lengthBytes = 4;
const headerBytes = 5;

/** Reads startup packets and messages out of what has arrived. */
export class MessageReader {
  readonly #queue = new ByteQueue();
  #hasHeader = false;
  #typeRead = 0;
  /** Of the body under way: what has not been skipped yet. */
  #left = 0;
  #declared = 0;

  /** Bytes that have arrived and were not taken. */
  get bufferedBytes(): number {
    return this.#queue.length;
  }

  /** The type of the message whose header was read. */
  get type(): number {
    return this.#typeRead;
  }

  /** The declared length of the body whose header was read; negative for one that would be shorter than its length. */
  get bodyBytes(): number {
    return this.#declared;
  }

  /** Takes a chunk by reference: its bytes must not change while anything read from it is in use. */
  push(chunk: Uint8Array): void {
    this.#queue.push(chunk);
  }

  /** Reads the length of a startup packet, unless it was read already. @returns false while it is not there */
  readStartupHeader(): boolean {
    if (this.#hasHeader) return true;
    const length = this.#queue.peekUint32();
    if (length === undefined) return false;
    this.#queue.skip(lengthBytes);
    this.#begin(0, length - lengthBytes);
    return true;
  }

  /** Reads type and length of a message, unless they were read already. @returns false while they are not there */
  readHeader(): boolean {
    if (this.#hasHeader) return true;
    const queue = this.#queue;
    if (queue.length < headerBytes) return false;
    const type = queue.peekUint32()! >>> 24;
    queue.skip(1);
    const length = queue.peekUint32()!;
    queue.skip(lengthBytes);
    this.#begin(type, length - lengthBytes);
    return true;
  }

  /** Reads the body: a view of what arrived if it came in one chunk. @returns undefined while it is not all there */
  readBody(): Uint8Array | undefined {
    if (this.#queue.length < this.#left) return undefined;
    this.#hasHeader = false;
    return this.#queue.take(this.#left);
  }

  /** Drops of the body what has arrived. @returns true when all of it has been dropped */
  skipBody(): boolean {
    const here = Math.min(this.#left, this.#queue.length);
    this.#queue.skip(here);
    this.#left -= here;
    if (this.#left > 0) return false;
    this.#hasHeader = false;
    return true;
  }

  /** Drops everything that has arrived. */
  clear(): void {
    this.#queue.skip(this.#queue.length);
  }

  #begin(type: number, bodyBytes: number): void {
    this.#hasHeader = true;
    this.#typeRead = type;
    this.#declared = bodyBytes;
    this.#left = bodyBytes;
  }
}
