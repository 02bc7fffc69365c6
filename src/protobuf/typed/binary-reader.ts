/**
 * Decoder for the binary format of Protobuf, compiled for each schema at its first use. The result equals
 * `fromBinary()` of protobuf-es; tests compare them. An error has the path of the field that does not fit the schema.
 */
import { create, type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { isWrapperDesc } from "@bufbuild/protobuf/wkt";
import { isAscii, latin1Of } from "./ascii.js";
import { isLong, wireTypeOf, wireTypeOfValue, wireTypes } from "./scalars.js";

/** Error for bytes that are not a message of the schema. */
export class Undecodable extends Error {
  /** Path of the field, such as `lines[2].sku`; empty for the message itself. */
  path = "";

  /** Prefixes the path with the field that contains the message. */
  within(field: string): this {
    this.path = this.path === "" ? field : `${field}.${this.path}`;
    return this;
  }
}

type Target = Record<string, unknown>;
type Read = () => unknown;
/** Reads the value after a tag into a message. */
type ReadField = (message: Target) => void;

/** Reader of the messages of a schema. */
export interface MessageReader {
  readonly zero: () => Target;
  /** Readers by tag, which is number and wire type. */
  readonly byTag: Map<number, ReadField>;
  /** Readers of fields with a short tag, by tag. */
  readonly byShortTag: (ReadField | undefined)[];
  readonly fields: ReadonlyMap<number, DescField>;
}

/** Greatest nesting of messages, the same as in protobuf-es. */
const maxDepth = 100;
const shortTags = 256;
const noBytes = new Uint8Array();

// State of the current decoding: bytes, position, end of the current message. Module variables are safe because
// decoding calls no foreign code.
let bytes: Uint8Array = noBytes;
let at = 0;
let end = 0;
let depth = 0;

/** Decodes a message with the reader of its schema; the result keeps no views of the bytes. @throws Undecodable */
export function decodeBinary(reader: MessageReader, payload: Uint8Array): Target {
  const message = reader.zero();
  bytes = payload;
  at = 0;
  end = payload.length;
  depth = 0;
  try {
    readFields(reader, message);
  } finally {
    bytes = noBytes;
    text = undefined;
  }
  return message;
}

function readFields({ byTag, byShortTag, fields }: MessageReader, message: Target): void {
  while (at < end) {
    const tag = readTag();
    const read = tag < shortTags ? byShortTag[tag] : byTag.get(tag);
    if (read !== undefined) read(message);
    else readUnknown(fields, tag, message);
    if (at > end) throw truncated();
  }
}

function readUnknown(fields: ReadonlyMap<number, DescField>, tag: number, message: Target): void {
  const number = tag >>> 3;
  const wireType = tag & 7;
  const known = fields.get(number);
  if (known !== undefined) {
    throw new Undecodable(`has the wire type ${wireType}, which its type in the schema does not have`).within(
      known.name,
    );
  }
  const start = at;
  skip(number, wireType);
  if (at > end) throw truncated();
  const field = { no: number, wireType, data: copyOf(start, at) };
  const before = message["$unknown"] as unknown[] | undefined;
  if (before === undefined) message["$unknown"] = [field];
  else before.push(field);
}

function skip(number: number, wireType: number): void {
  switch (wireType) {
    case wireTypes.varint:
      readVarint();
      return;
    case wireTypes.eightBytes:
      at += 8;
      return;
    case wireTypes.lengthAndBytes:
      at = readVarint32() + at;
      return;
    case wireTypes.fourBytes:
      at += 4;
      return;
    case 3: {
      if (++depth > maxDepth) throw tooDeep();
      for (;;) {
        if (at >= end) throw truncated();
        const tag = readTag();
        if ((tag & 7) === 4) {
          if (tag >>> 3 !== number) throw new Undecodable("a group ends that was not started");
          depth--;
          return;
        }
        skip(tag >>> 3, tag & 7);
      }
    }
    default:
      throw new Undecodable(`there is no wire type ${wireType}`);
  }
}

const readers = new WeakMap<DescMessage, MessageReader>();

export function readerOf(schema: DescMessage): MessageReader {
  const known = readers.get(schema);
  if (known !== undefined) return known;
  const byTag = new Map<number, ReadField>();
  const byShortTag: (ReadField | undefined)[] = new Array(shortTags).fill(undefined);
  const fields = new Map(schema.fields.map((field) => [field.number, field]));
  const reader = { zero: zeroOf(schema), byTag, byShortTag, fields };
  // Registered before the fields are compiled, because a field may have this very schema.
  readers.set(schema, reader);
  for (const field of schema.fields) {
    for (const [wireType, read] of compileField(field)) {
      const tag = ((field.number << 3) | wireType) >>> 0;
      byTag.set(tag, read);
      if (tag < shortTags) byShortTag[tag] = read;
    }
  }
  return reader;
}

/** Creates messages without values. A spread is the fastest way to copy. */
function zeroOf(schema: DescMessage): () => Target {
  const template = create(schema) as unknown as Target;
  const objects: (readonly [name: string, make: () => unknown])[] = [
    ...schema.oneofs.map(({ localName }) => [localName, () => ({ case: undefined })] as const),
    ...schema.fields.flatMap(({ fieldKind, localName }) => {
      if (fieldKind === "list") return [[localName, () => []] as const];
      return fieldKind === "map" ? [[localName, () => ({})] as const] : [];
    }),
  ];
  const fill = (message: Target): Target => {
    for (let index = 0; index < objects.length; index++) message[objects[index]![0]] = objects[index]![1]();
    return message;
  };
  const prototype = Object.getPrototypeOf(template);
  // Defaults are on the prototype, because own properties show which fields are set.
  if (prototype !== Object.prototype) return () => fill(Object.assign(Object.create(prototype), template));
  return objects.length === 0 ? () => ({ ...template }) : () => fill({ ...template });
}

/** Readers of a field, by the wire types that it may have. */
function compileField(field: DescField): (readonly [wireType: number, ReadField])[] {
  const name = field.localName;
  const wireType = wireTypeOfValue(field);
  if (field.fieldKind === "map") return [[wireTypes.lengthAndBytes, compileMap(field)]];
  if (field.fieldKind === "message") return [[wireType, compileMessage(field)]];
  if (field.fieldKind === "list") {
    if (field.listKind === "message") return [[wireType, compileMessageList(field)]];
    const read = compileScalar(field);
    const one: ReadField = (message) => void (message[name] as unknown[]).push(read());
    if (wireType === wireTypes.lengthAndBytes) return [[wireType, one]];
    const packed: ReadField = (message) => {
      const list = message[name] as unknown[];
      const last = readVarint32() + at;
      if (last > end) throw truncated(field);
      while (at < last) list.push(read());
      if (at > last) throw truncated(field);
    };
    return [
      [wireType, one],
      [wireTypes.lengthAndBytes, packed],
    ];
  }
  const read = compileScalar(field);
  const group = field.oneof?.localName;
  const readField: ReadField =
    group === undefined
      ? (message) => {
          message[name] = read();
        }
      : (message) => {
          message[group] = { case: name, value: read() };
        };
  return [[wireType, readField]];
}

/** Reads a nested message into `target` or a new message. */
function compileNested(field: DescField & { message: DescMessage }): (place: () => string, target?: Target) => Target {
  let reader: MessageReader | undefined;
  return (place, target) => {
    reader ??= readerOf(field.message);
    const message = target ?? reader.zero();
    const outer = end;
    const last = readVarint32() + at;
    if (last > outer) throw truncated(field);
    if (++depth > maxDepth) throw tooDeep();
    end = last;
    try {
      readFields(reader, message);
    } catch (error) {
      throw error instanceof Undecodable ? error.within(place()) : error;
    }
    depth--;
    end = outer;
    return message;
  };
}

function compileMessage(field: DescField & { fieldKind: "message" }): ReadField {
  const name = field.localName;
  const read = compileNested(field);
  const place = () => field.name;
  // A message field that occurs twice is merged.
  if (field.oneof !== undefined) {
    const group = field.oneof.localName;
    return (message) => {
      const before = message[group] as { case?: string; value?: Target };
      message[group] = { case: name, value: read(place, before.case === name ? before.value : undefined) };
    };
  }
  if (isWrapperDesc(field.message)) {
    return (message) => {
      const before = message[name];
      const target = before === undefined ? undefined : ({ ...create(field.message), value: before } as Target);
      message[name] = read(place, target)["value"];
    };
  }
  return (message) => {
    message[name] = read(place, message[name] as Target | undefined);
  };
}

function compileMessageList(field: DescField & { fieldKind: "list"; listKind: "message" }): ReadField {
  const name = field.localName;
  const read = compileNested(field);
  return (message) => {
    const list = message[name] as unknown[];
    list.push(read(() => `${field.name}[${list.length}]`));
  };
}

function compileMap(field: DescField & { fieldKind: "map" }): ReadField {
  const name = field.localName;
  const readKey = scalarReaders[field.mapKey];
  const keyTag = (1 << 3) | wireTypeOf(field.mapKey);
  const valueTag = (2 << 3) | wireTypeOfValue(field);
  const [readValue, zeroValue] = compileMapValue(field);
  const zeroKey = field.mapKey === ScalarType.STRING ? "" : field.mapKey === ScalarType.BOOL ? false : 0;
  return (message) => {
    const map = message[name] as Target;
    const outer = end;
    const last = readVarint32() + at;
    if (last > outer) throw truncated(field);
    end = last;
    let key: unknown = zeroKey;
    let value: unknown;
    while (at < last) {
      const tag = readTag();
      if (tag === keyTag) key = readKey();
      else if (tag === valueTag) value = readValue(() => `${field.name}[${JSON.stringify(String(key))}]`);
      else if (tag >>> 3 > 2) skip(tag >>> 3, tag & 7);
      else
        throw new Undecodable(`has the wire type ${tag & 7} in a key or value, which does not fit its type`).within(
          field.name,
        );
      if (at > last) throw truncated(field);
    }
    end = outer;
    const property = String(key);
    value ??= zeroValue();
    if (property === "__proto__") {
      Object.defineProperty(map, property, { value, configurable: true, enumerable: true, writable: true });
    } else map[property] = value;
  };
}

function compileMapValue(
  field: DescField & { fieldKind: "map" },
): [read: (place: () => string) => unknown, zero: () => unknown] {
  if (field.mapKind === "message") return [compileNested(field), () => readerOf(field.message).zero()];
  if (field.mapKind === "enum") return [compileScalar(field), () => field.enum.values[0]!.number];
  const { scalar } = field;
  const zeros: Partial<Record<ScalarType, () => unknown>> = {
    [ScalarType.STRING]: () => "",
    [ScalarType.BYTES]: () => new Uint8Array(),
    [ScalarType.BOOL]: () => false,
  };
  return [compileScalar(field), zeros[scalar] ?? (() => (isLong(scalar) ? 0n : 0))];
}

/** Reads the value of a field, an element of a list, or a value in a map. */
function compileScalar(field: DescField): Read {
  if (field.enum !== undefined) return scalarReaders[ScalarType.INT32];
  const scalar = field.scalar!;
  if (scalar === ScalarType.STRING && field.fieldKind !== "map") {
    const isStrict = !("utf8Validation" in field) || field.utf8Validation;
    return () => readString(isStrict, field);
  }
  const read = scalarReaders[scalar];
  return "longAsString" in field && field.longAsString ? () => String(read()) : read;
}

/** @throws Undecodable if the tag has more than 32 bits, or field number 0 */
function readTag(): number {
  const begun = at;
  const tag = readVarint32();
  const length = at - begun;
  if (length > 5 || (length === 5 && bytes[at - 1]! > 0x0f)) throw new Undecodable("a tag has more than 32 bits");
  if (tag >>> 3 === 0) throw new Undecodable("there is no tag where a field should begin");
  return tag;
}

function readVarint32(): number {
  const first = bytes[at]!;
  if (first < 0x80) {
    at++;
    return first;
  }
  readVarint();
  return low;
}

/** Halves of the last varint. */
let low = 0;
let high = 0;

function readVarint(): void {
  low = 0;
  high = 0;
  for (let shift = 0; shift < 70; shift += 7) {
    // Beyond the end, the byte is undefined, which counts as 0 here; the caller checks the end.
    const byte = bytes[at++]!;
    const part = byte & 0x7f;
    if (shift < 28) low |= part << shift;
    else if (shift === 28) {
      low |= part << 28;
      high = part >>> 4;
    } else high |= part << (shift - 32);
    if (byte < 0x80 || at > end) {
      low >>>= 0;
      high >>>= 0;
      if (at > end) throw truncated();
      return;
    }
  }
  throw new Undecodable("a number has more than ten bytes");
}

const halves = new Uint32Array(2);
const asUnsigned = new BigUint64Array(halves.buffer);
const asSigned = new BigInt64Array(halves.buffer);
const eightBytes = new Uint8Array(8);
const asDouble = new Float64Array(eightBytes.buffer);
const asFloat = new Float32Array(eightBytes.buffer);
const asInteger = new Uint32Array(eightBytes.buffer);

function readLong(isSigned: boolean): bigint {
  readVarint();
  halves[0] = low;
  halves[1] = high;
  return isSigned ? asSigned[0]! : asUnsigned[0]!;
}

/** Copies bytes into `eightBytes`. */
function take(count: 4 | 8): void {
  if (at + count > end) throw truncated();
  for (let index = 0; index < count; index++) eightBytes[index] = bytes[at++]!;
}

/**
 * Pool for copies of small values, retained as long as one of them: allocating each copy separately takes several times
 * as long.
 */
const poolBytes = 8 * 1024;
const pooledBytes = 1024;
let pool = new ArrayBuffer(poolBytes);
let poolAt = 0;

function copyOf(start: number, last: number): Uint8Array {
  const length = last - start;
  // Not `slice`, which returns a view for a Buffer.
  if (length > pooledBytes) return new Uint8Array(bytes.subarray(start, last));
  if (poolAt + length > poolBytes) {
    pool = new ArrayBuffer(poolBytes);
    poolAt = 0;
  }
  const copy = new Uint8Array(pool, poolAt, length);
  poolAt += length;
  copy.set(bytes.subarray(start, last));
  return copy;
}

const { utf8Slice } = Buffer.prototype as Buffer & { utf8Slice(this: Uint8Array, start: number, end: number): string };
const strictDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Maximum length of a payload that is decoded to one string at once. The strings of the message are then substrings,
 * each of which retains the whole string.
 */
const sharedTextBytes = 1024;
/** String of the whole current payload; undefined before the first use. */
let text: string | undefined;

function asciiOf(start: number, last: number): string {
  if (bytes.length > sharedTextBytes) return utf8Slice.call(bytes, start, last);
  text ??= latin1Of(bytes);
  return text.substring(start, last);
}

function readString(isStrict: boolean, field: DescField): string {
  const length = readVarint32();
  const start = at;
  if (length > end - start) throw truncated(field);
  at += length;
  if (length === 0) return "";
  if (isAscii(bytes, start, at)) return asciiOf(start, at);
  const decoded = utf8Slice.call(bytes, start, at);
  // A replacement character may also have been sent.
  if (isStrict && decoded.includes("\ufffd")) {
    try {
      strictDecoder.decode(bytes.subarray(start, at));
    } catch {
      throw new Undecodable("is not valid UTF-8").within(field.name);
    }
  }
  return decoded;
}

const scalarReaders: Readonly<Record<ScalarType, Read>> = {
  [ScalarType.STRING]: () => {
    const length = readVarint32();
    const start = at;
    if (length > end - start) throw truncated();
    at += length;
    try {
      return strictDecoder.decode(bytes.subarray(start, at));
    } catch {
      throw new Undecodable("a text in a map is not valid UTF-8");
    }
  },
  [ScalarType.BYTES]: () => {
    const length = readVarint32();
    if (length > end - at) throw truncated();
    at += length;
    return copyOf(at - length, at);
  },
  [ScalarType.BOOL]: () => {
    readVarint();
    return (low | high) !== 0;
  },
  [ScalarType.INT32]: () => {
    const first = bytes[at]!;
    if (first < 0x80) {
      at++;
      return first;
    }
    readVarint();
    return low | 0;
  },
  [ScalarType.UINT32]: readVarint32,
  [ScalarType.SINT32]: () => {
    const value = readVarint32();
    return (value >>> 1) ^ -(value & 1);
  },
  [ScalarType.FIXED32]: () => {
    take(4);
    return asInteger[0];
  },
  [ScalarType.SFIXED32]: () => {
    take(4);
    return asInteger[0]! | 0;
  },
  [ScalarType.FLOAT]: () => {
    take(4);
    return asFloat[0];
  },
  [ScalarType.DOUBLE]: () => {
    take(8);
    return asDouble[0];
  },
  [ScalarType.INT64]: () => readLong(true),
  [ScalarType.UINT64]: () => readLong(false),
  [ScalarType.SINT64]: () => {
    readVarint();
    const sign = -(low & 1);
    halves[0] = ((low >>> 1) | (high << 31)) ^ sign;
    halves[1] = (high >>> 1) ^ sign;
    return asSigned[0];
  },
  [ScalarType.FIXED64]: () => {
    take(8);
    halves.set(asInteger);
    return asUnsigned[0];
  },
  [ScalarType.SFIXED64]: () => {
    take(8);
    halves.set(asInteger);
    return asSigned[0];
  },
};

function truncated(field?: DescField): Undecodable {
  const error = new Undecodable("the message ends in the middle of a field");
  return field === undefined ? error : error.within(field.name);
}

function tooDeep(): Undecodable {
  return new Undecodable(`messages are nested deeper than ${maxDepth}`);
}
