/** Memory that frames are encoded into. */
export interface FrameOutput {
  /** Block being filled. {@link reserve} makes room in it. */
  block: Uint8Array;
  /** Position of the next byte in {@link block}. */
  at: number;
  /** Makes room for `count` contiguous bytes. */
  reserve(count: number): void;
  /** Copies bytes of any length, split over blocks if necessary. */
  copy(bytes: Uint8Array): void;
}

/** Longest encoded list of headers that is cached per connection; limited because there may be many connections. */
const keptListBytes = 4096;

/** Greatest nesting of groups in an unknown field. */
const maxGroupDepth = 100;

const noBytes = new Uint8Array(0);
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const utf8Encoder = new TextEncoder();
const { latin1Slice } = Buffer.prototype as Buffer & {
  latin1Slice(this: Uint8Array, start: number, end: number): string;
};

/**
 * Reads messages of one connection, frame by frame. Methods throw an error that names the part that cannot be decoded.
 */
export class FrameInput {
  /** Frame being read. */
  bytes: Uint8Array = noBytes;
  /** Position of the next byte. */
  at = 0;
  /** True if a value of the frame breaks a rule of the spec. */
  breaksRule = false;

  #keptBytes: Uint8Array = noBytes;
  #keptList: readonly unknown[] = [];

  /** Starts reading a frame. */
  begin(bytes: Uint8Array): void {
    this.bytes = bytes;
    this.at = 0;
    this.breaksRule = false;
  }

  /** Lowest 32 bits, signed, of a varint whose first byte is `first`. */
  rest32(first: number): number {
    const { bytes } = this;
    let value = first & 0x7f;
    for (let shift = 7; shift < 70; shift += 7) {
      const byte = bytes[this.at++];
      if (byte === undefined) break;
      if (shift < 32) value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw new RangeError("a number does not end");
  }

  /** Value of a varint whose first byte is `first`: exact up to 2^53; greater values yield a number above 2^53. */
  rest(first: number): number {
    const { bytes } = this;
    let value = first & 0x7f;
    for (let scale = 128; scale <= 2 ** 63; scale *= 128) {
      const byte = bytes[this.at++];
      if (byte === undefined) break;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
    throw new RangeError("a number does not end");
  }

  /** Reads the rest of a tag whose first byte is `first`. @throws RangeError if it has more than 5 bytes or 32 bits */
  tag(first: number): number {
    const from = this.at;
    const tag = this.rest(first);
    if (tag > 0xffffffff || this.at > from + 4) throw new RangeError(`${tag} is not the tag of a field`);
    return tag;
  }

  /** Reads a 64-bit number in decimal. */
  decimal(): string {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#byte();
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return String(BigInt.asUintN(64, value));
    }
    throw new RangeError("a number does not end");
  }

  /** Reads a length. @returns the end of the value @throws RangeError if it lies beyond `end` */
  stop(end: number): number {
    const first = this.bytes[this.at++]!;
    const length = first < 0x80 ? first : this.rest32(first) >>> 0;
    const stop = this.at + length;
    if (stop > end) throw new RangeError(`a value of ${length} bytes extends beyond its message`);
    return stop;
  }

  /** Reads bytes as a view. */
  view(end: number): Uint8Array {
    const stop = this.stop(end);
    const start = this.at;
    this.at = stop;
    return this.bytes.subarray(start, stop);
  }

  /**
   * Reads a text. Only valid UTF-8 is accepted, because replacement characters could make two different names equal.
   */
  text(end: number): string {
    const stop = this.stop(end);
    const { bytes, at: start } = this;
    this.at = stop;
    for (let at = start; at < stop; at++) if (bytes[at]! > 0x7f) return utf8.decode(bytes.subarray(start, stop));
    return latin1Slice.call(bytes, start, stop);
  }

  /** Reads a packed list of enum values. @throws RangeError if the list would exceed `maxItems` */
  packed(end: number, values: number[], name: string, maxItems: number): void {
    const stop = this.stop(end);
    while (this.at < stop) {
      if (values.length === maxItems) throw this.tooLong(name, maxItems);
      const first = this.#byte();
      values.push(first < 0x80 ? first : this.rest32(first));
    }
    if (this.at !== stop) throw this.misfit(stop);
  }

  /**
   * Reads consecutive messages with the same tag; the first tag has been read. Consecutive frames mostly end with the
   * same list, which is decoded once and then returned as the same array.
   *
   * @throws RangeError for more than `maxItems`
   */
  list<T>(end: number, tag: number, name: string, maxItems: number, read: (input: FrameInput, end: number) => T): T[] {
    const from = this.at - 1;
    const { bytes } = this;
    if (this.#isKept(from, end)) {
      this.at = end;
      return this.#keptList as T[];
    }
    const list = [read(this, this.stop(end))];
    while (this.at < end && bytes[this.at] === tag) {
      if (list.length === maxItems) throw this.tooLong(name, maxItems);
      this.at += 1;
      list.push(read(this, this.stop(end)));
    }
    if (this.at === end && end - from <= keptListBytes && !this.breaksRule) {
      // A copy, because a view would retain a frame that may be long.
      this.#keptBytes = bytes.slice(from, end);
      this.#keptList = list;
    }
    return list;
  }

  /** Skips a field that this version does not know. */
  skip(tag: number, depth = 0): void {
    if (tag >>> 3 === 0 || depth > maxGroupDepth) throw new RangeError(`${tag} is not the tag of a field`);
    switch (tag & 7) {
      case 0:
        while (this.#byte() > 0x7f);
        return;
      case 1:
        this.at += 8;
        return;
      case 2:
        this.at = this.stop(this.bytes.length);
        return;
      case 3:
        for (;;) {
          const first = this.#byte();
          const inner = first < 0x80 ? first : this.tag(first);
          if ((inner & 7) !== 4) this.skip(inner, depth + 1);
          else if (inner >>> 3 === tag >>> 3) return;
          else throw new RangeError(`a group of field ${tag >>> 3} ends as one of field ${inner >>> 3}`);
        }
      case 5:
        this.at += 4;
        return;
      default:
        throw new RangeError(`${tag} is not the tag of a field`);
    }
  }

  /** Error for a list that exceeds its rule; the excess element is not read. */
  tooLong(name: string, maxItems: number): RangeError {
    return new RangeError(`${name} must have at most ${maxItems} elements, and has more`);
  }

  /** Error for a message that does not end where its length says. */
  misfit(end: number): RangeError {
    return new RangeError(`a message ends at ${this.at}, not at ${end}`);
  }

  #byte(): number {
    const byte = this.bytes[this.at++];
    if (byte === undefined) throw new RangeError("it ends too early");
    return byte;
  }

  #isKept(start: number, end: number): boolean {
    const kept = this.#keptBytes;
    const { length } = kept;
    if (length !== end - start) return false;
    const { bytes } = this;
    for (let index = 0; index < length; index++) if (kept[index] !== bytes[start + index]) return false;
    return true;
  }
}

/** Encoded size of an integer in bytes. A negative 32-bit integer takes 10. */
export function numberBytes(value: number): number {
  if (value < 0x80) return value < 0 ? 10 : 1;
  let bytes = 1;
  for (let rest = value; rest >= 0x80 && bytes < 10; rest /= 128) bytes += 1;
  return bytes;
}

/** Writes an integer from 0 to 2^53 − 1, or a negative 32-bit integer. The caller has reserved 10 bytes. */
export function writeNumber(output: FrameOutput, value: number): void {
  if (value < 0) {
    writeDecimal(output, BigInt(value));
    return;
  }
  const { block } = output;
  let { at } = output;
  let rest = value;
  for (; rest > 0x7fff_ffff; rest = Math.floor(rest / 128)) block[at++] = (rest % 128) | 0x80;
  for (; rest > 0x7f; rest >>>= 7) block[at++] = (rest & 0x7f) | 0x80;
  block[at++] = rest;
  output.at = at;
}

/** Encoded size of a 64-bit number in bytes. */
export function decimalBytes(value: string): number {
  let bytes = 1;
  for (let rest = BigInt.asUintN(64, BigInt(value)); rest > 0x7fn; rest >>= 7n) bytes += 1;
  return bytes;
}

/** Writes a 64-bit number. The caller has reserved 10 bytes. */
export function writeDecimal(output: FrameOutput, value: string | bigint): void {
  let rest = BigInt.asUintN(64, BigInt(value));
  for (; rest > 0x7fn; rest >>= 7n) output.block[output.at++] = Number(rest & 0x7fn) | 0x80;
  output.block[output.at++] = Number(rest);
}

/** Encoded size of a value of `length` bytes, including its length. */
export function sized(length: number): number {
  return (length < 0x80 ? 1 : numberBytes(length)) + length;
}

/** Writes a tag and a length. The caller has reserved 11 bytes. */
export function writeHead(output: FrameOutput, tag: number, length: number): void {
  output.block[output.at++] = tag;
  if (length < 0x80) output.block[output.at++] = length;
  else writeNumber(output, length);
}

/** Encoded size of a packed list of enums, without tag and length. */
export function packedBytes(values: readonly number[]): number {
  let bytes = 0;
  for (const value of values) bytes += numberBytes(value);
  return bytes;
}

/** Writes a packed list of enums with tag and length. */
export function writePacked(output: FrameOutput, tag: number, values: readonly number[]): void {
  if (values.length === 0) return;
  output.reserve(11 + values.length * 10);
  writeHead(output, tag, packedBytes(values));
  for (const value of values) writeNumber(output, value);
}

/** Writes bytes with tag and length. */
export function writeBytes(output: FrameOutput, tag: number, bytes: Uint8Array): void {
  output.reserve(11);
  writeHead(output, tag, bytes.length);
  output.copy(bytes);
}

/** Writes a text with tag and length. */
export function writeText(output: FrameOutput, tag: number, text: string): void {
  const length = Buffer.byteLength(text);
  output.reserve(11 + length);
  writeHead(output, tag, length);
  const { block, at } = output;
  if (length === text.length) for (let index = 0; index < length; index++) block[at + index] = text.charCodeAt(index);
  else utf8Encoder.encodeInto(text, block.subarray(at));
  output.at = at + length;
}

type Size<T> = (message: T) => number;
type Write<T> = (output: FrameOutput, message: T) => void;

/** Last list that was encoded into {@link kept}. The next frame mostly ends with the same list. */
let keptList: readonly unknown[] | undefined;
const kept: FrameOutput = {
  block: new Uint8Array(keptListBytes + 16),
  at: 0,
  reserve: () => undefined,
  copy: () => undefined,
};

/** Encoded size of a list of messages, each with its tag and length. */
export function listBytes<T>(list: readonly T[], tag: number, size: Size<T>, write: Write<T>): number {
  if (list.length === 0) return 0;
  if (list === keptList && kept.block[0] === tag) return kept.at;
  let bytes = 0;
  for (const one of list) bytes += 1 + sized(size(one));
  if (bytes <= keptListBytes) {
    keptList = undefined;
    kept.at = 0;
    writeEach(kept, list, tag, size, write);
    keptList = list;
  }
  return bytes;
}

/** Writes a list of messages, each with tag and length; reuses the bytes of the last list. */
export function writeList<T>(
  output: FrameOutput,
  list: readonly T[],
  tag: number,
  size: Size<T>,
  write: Write<T>,
): void {
  if (list.length === 0) return;
  if (list === keptList && kept.block[0] === tag) output.copy(kept.block.subarray(0, kept.at));
  else writeEach(output, list, tag, size, write);
}

/** Writes messages, each with tag and length. */
export function writeEach<T>(
  output: FrameOutput,
  list: readonly T[],
  tag: number,
  size: Size<T>,
  write: Write<T>,
): void {
  for (const one of list) {
    output.reserve(11);
    writeHead(output, tag, size(one));
    write(output, one);
  }
}
