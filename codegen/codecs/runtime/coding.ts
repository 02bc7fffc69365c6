/** Memory that frames are encoded into. */
export interface FrameOutput {
  /** The block being filled. Room is made by {@link reserve}. */
  block: Uint8Array;
  /** The position of the next byte in {@link block}. */
  at: number;
  /** Makes room for `count` bytes in one piece. */
  reserve(count: number): void;
  /** Copies bytes of any length, in as many pieces as it takes. */
  copy(bytes: Uint8Array): void;
}

/** The longest list of headers that is kept, encoded or as it came: there may be very many connections. */
const keptListBytes = 4096;

/** Nested groups of a field that this version does not know. */
const maxGroupDepth = 100;

const noBytes = new Uint8Array(0);
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const utf8Encoder = new TextEncoder();
const { latin1Slice } = Buffer.prototype as Buffer & {
  latin1Slice(this: Uint8Array, start: number, end: number): string;
};

/** Reads messages of one connection, frame by frame. Its methods throw an error that says what cannot be decoded. */
export class FrameInput {
  /** The frame being read. */
  bytes: Uint8Array = noBytes;
  /** The position of the next byte. */
  at = 0;
  /** A value of the frame breaks a rule of the spec. */
  breaksRule = false;

  #keptBytes: Uint8Array = noBytes;
  #keptList: readonly unknown[] = [];

  /** Begins with a frame. */
  begin(bytes: Uint8Array): void {
    this.bytes = bytes;
    this.at = 0;
    this.breaksRule = false;
  }

  /** The lowest 32 bits, with sign, of a number that has begun with this byte. */
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

  /** A number that has begun with this byte: exact up to 2^53, and greater than that for any greater one. */
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

  /** Reads the rest of a tag that has begun with this byte. @throws RangeError if it has more than 5 bytes or 32 bits */
  tag(first: number): number {
    const from = this.at;
    const tag = this.rest(first);
    if (tag > 0xffffffff || this.at > from + 4) throw new RangeError(`${tag} is no tag of a field`);
    return tag;
  }

  /** A number of 64 bits in decimal. */
  decimal(): string {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#byte();
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return String(BigInt.asUintN(64, value));
    }
    throw new RangeError("a number does not end");
  }

  /** Reads a length. @returns where what has it ends @throws RangeError if that is behind `end` */
  stop(end: number): number {
    const first = this.bytes[this.at++]!;
    const length = first < 0x80 ? first : this.rest32(first) >>> 0;
    const stop = this.at + length;
    if (stop > end) throw new RangeError(`a value of ${length} bytes leaves its message`);
    return stop;
  }

  /** A view of bytes. */
  view(end: number): Uint8Array {
    const stop = this.stop(end);
    const start = this.at;
    this.at = stop;
    return this.bytes.subarray(start, stop);
  }

  /** A text. Replacement characters would let two different names look alike: only valid UTF-8 is taken. */
  text(end: number): string {
    const stop = this.stop(end);
    const { bytes, at: start } = this;
    this.at = stop;
    for (let at = start; at < stop; at++) if (bytes[at]! > 0x7f) return utf8.decode(bytes.subarray(start, stop));
    return latin1Slice.call(bytes, start, stop);
  }

  /** Values of an enum in one piece, as encoders write them. @throws RangeError for more than `maxItems` in all */
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
   * Messages one behind another, with whose first tag the reader has gone on. Frames that follow each other mostly end with
   * the same list: then it is the same array, which is decoded once.
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
      // A copy, since a view would keep a frame that may be long.
      this.#keptBytes = bytes.slice(from, end);
      this.#keptList = list;
    }
    return list;
  }

  /** Passes over a field that this version does not know. */
  skip(tag: number, depth = 0): void {
    if (tag >>> 3 === 0 || depth > maxGroupDepth) throw new RangeError(`${tag} is no tag of a field`);
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
        throw new RangeError(`${tag} is no tag of a field`);
    }
  }

  /** The error of a list with one more element than its rule allows, none of which is read any more. */
  tooLong(name: string, maxItems: number): RangeError {
    return new RangeError(`${name} must have at most ${maxItems} elements, and has more`);
  }

  /** The error of a message that does not end where its length says. */
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

/** The bytes that an integer takes. A negative one is of 32 bits, and takes 10. */
export function numberBytes(value: number): number {
  if (value < 0x80) return value < 0 ? 10 : 1;
  let bytes = 1;
  for (let rest = value; rest >= 0x80 && bytes < 10; rest /= 128) bytes += 1;
  return bytes;
}

/** Writes an integer from 0 to 2^53 − 1, or a negative one of 32 bits. There is room for 10 bytes. */
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

/** The bytes that a number of 64 bits takes. */
export function decimalBytes(value: string): number {
  let bytes = 1;
  for (let rest = BigInt.asUintN(64, BigInt(value)); rest > 0x7fn; rest >>= 7n) bytes += 1;
  return bytes;
}

/** Writes a number of 64 bits. There is room for 10 bytes. */
export function writeDecimal(output: FrameOutput, value: string | bigint): void {
  let rest = BigInt.asUintN(64, BigInt(value));
  for (; rest > 0x7fn; rest >>= 7n) output.block[output.at++] = Number(rest & 0x7fn) | 0x80;
  output.block[output.at++] = Number(rest);
}

/** The bytes that a value of this length takes, with its length. */
export function sized(length: number): number {
  return (length < 0x80 ? 1 : numberBytes(length)) + length;
}

/** Writes a tag and a length. There is room for 11 bytes. */
export function writeHead(output: FrameOutput, tag: number, length: number): void {
  output.block[output.at++] = tag;
  if (length < 0x80) output.block[output.at++] = length;
  else writeNumber(output, length);
}

/** The bytes that enums take in one piece. */
export function packedBytes(values: readonly number[]): number {
  let bytes = 0;
  for (const value of values) bytes += numberBytes(value);
  return bytes;
}

/** Writes enums in one piece, with tag and length. */
export function writePacked(output: FrameOutput, tag: number, values: readonly number[]): void {
  if (values.length === 0) return;
  output.reserve(11 + values.length * 10);
  writeHead(output, tag, packedBytes(values));
  for (const value of values) writeNumber(output, value);
}

/** Writes bytes, with tag and length. */
export function writeBytes(output: FrameOutput, tag: number, bytes: Uint8Array): void {
  output.reserve(11);
  writeHead(output, tag, bytes.length);
  output.copy(bytes);
}

/** Writes a text, with tag and length. */
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

/** The last list that was encoded, in {@link kept}: mostly the next frame, too, ends with it. */
let keptList: readonly unknown[] | undefined;
const kept: FrameOutput = {
  block: new Uint8Array(keptListBytes + 16),
  at: 0,
  reserve: () => undefined,
  copy: () => undefined,
};

/** The bytes that messages take, each with its tag and length. */
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

/** Writes messages, each with tag and length. */
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
