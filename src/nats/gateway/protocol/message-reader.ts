/**
 * Parses the data of a client: startup packets, which have no type, and messages.
 *
 *     startup packet:  u32 length including itself, body
 *     message:         u8 type, u32 length including itself, body
 *
 * The input may be split anywhere. Memory is used for received bytes only, never for a declared length. Each `read…`
 * method consumes nothing until its part has arrived completely.
 */
import { ByteQueue } from "./byte-queue.js";

const lengthBytes = 4;
const headerBytes = 5;

/** Incremental reader of startup packets and messages. */
export class MessageReader {
  readonly #queue = new ByteQueue();
  #hasHeader = false;
  #typeRead = 0;
  /** Bytes of the current body that were neither read nor skipped yet. */
  #left = 0;
  #declared = 0;

  /** Bytes that have arrived and are not consumed. */
  get bufferedBytes(): number {
    return this.#queue.length;
  }

  /** Type of the message whose header was read. */
  get type(): number {
    return this.#typeRead;
  }

  /** Declared length of the current body; negative if the declared length is too small. */
  get bodyBytes(): number {
    return this.#declared;
  }

  /** Adds a chunk by reference: its bytes must not change while data read from it is in use. */
  push(chunk: Uint8Array): void {
    this.#queue.push(chunk);
  }

  /** Reads the length of a startup packet, unless it was already read. @returns false until it has arrived */
  readStartupHeader(): boolean {
    if (this.#hasHeader) return true;
    const length = this.#queue.peekUint32();
    if (length === undefined) return false;
    this.#queue.skip(lengthBytes);
    this.#begin(0, length - lengthBytes);
    return true;
  }

  /** Reads type and length of a message, unless they were already read. @returns false until they have arrived */
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

  /** Reads the body, as a view if it arrived in one chunk. @returns undefined until it has arrived completely */
  readBody(): Uint8Array | undefined {
    if (this.#queue.length < this.#left) return undefined;
    this.#hasHeader = false;
    return this.#queue.take(this.#left);
  }

  /** Discards the part of the body that has arrived. @returns true when the whole body is discarded */
  skipBody(): boolean {
    const here = Math.min(this.#left, this.#queue.length);
    this.#queue.skip(here);
    this.#left -= here;
    if (this.#left > 0) return false;
    this.#hasHeader = false;
    return true;
  }

  /** Discards everything that has arrived. */
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
