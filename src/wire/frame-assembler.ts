/**
 * Bytes in, split anywhere; whole frames out. Each is copied once, into memory of its own: the caller may use what it pushed
 * again, and who keeps a payload keeps one frame in memory.
 */
import { Fifo, uncleared } from "../runtime/index.js";

/** The u32 big-endian length before each frame. */
export const lengthPrefixBytes = 4;

/** A frame that has begun has memory for so many times what has come of it: a length that is only declared has none. */
const growth = 4;

/** Up to here clearing costs less than not to. */
const smallBytes = 4096;

const none: Uint8Array = new Uint8Array(0);

export class FrameAssembler {
  readonly #whole = new Fifo<Uint8Array>();
  /** Of the length in front of the next frame: what has come of it, and how many bytes that is. */
  #prefix = 0;
  #prefixBytes = 0;
  /** The length of the frame that has begun; undefined: none has. */
  #length: number | undefined;
  #memory = none;
  #filled = 0;

  /** @param headBytes so many bytes come first without a length, and are the first to be taken */
  constructor(headBytes: number) {
    if (headBytes > 0) this.#length = headBytes;
  }

  /** The length of what {@link take} is about: of the next frame, as soon as it is declared. */
  get length(): number | undefined {
    return this.#whole.at(0)?.length ?? this.#length;
  }

  /** What has come of the next frame. */
  get begun(): Uint8Array {
    return this.#whole.at(0) ?? this.#memory.subarray(0, this.#filled);
  }

  /** Takes the next frame; undefined while it has not come whole. The bytes are the caller's. */
  take(): Uint8Array | undefined {
    return this.#whole.shift();
  }

  /** Appends received bytes. They are the caller's again afterwards. */
  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) at = this.#length === undefined ? this.#readLength(chunk, at) : this.#fill(chunk, at);
  }

  /** @returns how far it has read, as {@link #fill} */
  #readLength(chunk: Uint8Array, from: number): number {
    let at = from;
    while (this.#prefixBytes < lengthPrefixBytes && at < chunk.length) {
      this.#prefix = this.#prefix * 256 + chunk[at++]!;
      this.#prefixBytes += 1;
    }
    if (this.#prefixBytes < lengthPrefixBytes) return at;
    if (this.#prefix === 0) this.#whole.push(none);
    else this.#length = this.#prefix;
    this.#prefix = 0;
    this.#prefixBytes = 0;
    return at;
  }

  #fill(chunk: Uint8Array, from: number): number {
    const length = this.#length!;
    const end = Math.min(chunk.length, from + length - this.#filled);
    const filled = this.#filled + end - from;
    if (filled > this.#memory.length) {
      const before = this.#memory;
      const bytes = Math.min(length, filled * growth);
      this.#memory = bytes <= smallBytes ? new Uint8Array(bytes) : uncleared(bytes);
      this.#memory.set(before.subarray(0, this.#filled));
    }
    this.#memory.set(from === 0 && end === chunk.length ? chunk : chunk.subarray(from, end), this.#filled);
    this.#filled = filled;
    if (filled === length) {
      this.#whole.push(this.#memory);
      this.#length = undefined;
      this.#memory = none;
      this.#filled = 0;
    }
    return end;
  }
}
