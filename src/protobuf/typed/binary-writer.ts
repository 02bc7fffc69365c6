/**
 * Encoder for the binary format of Protobuf, compiled for each schema at its first use. It encodes any initializer that
 * `create()` of protobuf-es accepts. The result equals `toBinary(schema, create(schema, init))`; tests compare them.
 *
 * Messages are written consecutively into a block of memory, and each payload is a part of the block: copying it out
 * would take as long as encoding it.
 */
import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence, isWrapperDesc } from "@bufbuild/protobuf/wkt";
import { keyOf, wireTypeOf, wireTypeOfValue, wireTypes } from "./scalars.js";

/** Message, or its initializer, with the property names of protobuf-es. */
export type Fields = Readonly<Record<string, unknown>>;

/** Thrown for a value of the wrong type, without details: value-types.ts finds the value. */
export const wrongType = new Error("a value has the wrong type");

type Write = (value: unknown) => void;
type WriteField = (message: Fields) => void;
/** Writes a message. */
export type WriteMessage = WriteField;

/** Size of a block, which is retained as long as one of its payloads. */
const blockBytes = 16 * 1024;
/** Least free space with which a message starts in the current block. */
const leastRoom = 512;
let block: Buffer = Buffer.allocUnsafeSlow(blockBytes);
let view: DataView = new DataView(block.buffer);
let at = 0;
/**
 * True during an encoding. A message that a getter encodes meanwhile is written after the unfinished one, and copied.
 */
let isEncoding = false;

/** Encodes a message with the writer of its schema. @throws {@link wrongType} */
export function encodeBinary(write: WriteMessage, message: Fields): Uint8Array {
  const isInner = isEncoding;
  if (!isInner && block.length - at < leastRoom) {
    useBlock(Buffer.allocUnsafeSlow(blockBytes));
    at = 0;
  }
  const start = at;
  isEncoding = true;
  try {
    write(message);
    if (!isInner && block.length === blockBytes) return new Uint8Array(block.buffer, start, at - start);
    const payload = Uint8Array.prototype.slice.call(block, start, at);
    at = start;
    return payload;
  } catch (error) {
    at = start;
    throw error;
  } finally {
    isEncoding = isInner;
    if (!isInner && block.length > blockBytes) {
      useBlock(Buffer.allocUnsafeSlow(blockBytes));
      at = 0;
    }
  }
}

function useBlock(next: Buffer): void {
  block = next;
  view = new DataView(next.buffer);
}

function grow(bytes: number): void {
  const larger = Buffer.allocUnsafeSlow(Math.max(block.length * 2, at + bytes));
  block.copy(larger, 0, 0, at);
  useBlock(larger);
}

const writers = new WeakMap<DescMessage, WriteField>();

export function writerOf(schema: DescMessage): WriteMessage {
  const known = writers.get(schema);
  if (known !== undefined) return known;
  const fields: WriteField[] = [];
  const { typeName } = schema;
  const write: WriteField = (message) => {
    if (typeof message !== "object" || message === null) throw wrongType;
    const name = message["$typeName"];
    if (name !== undefined && name !== typeName) throw wrongType;
    for (let index = 0; index < fields.length; index++) fields[index]!(message);
    const unknown = message["$unknown"];
    if (unknown !== undefined) writeUnknown(unknown as UnknownField[]);
  };
  // Registered before the fields are compiled, because a field may have this very schema.
  writers.set(schema, write);
  for (const field of schema.fields.toSorted((a, b) => a.number - b.number)) fields.push(compileField(field));
  return write;
}

interface UnknownField {
  readonly no: number;
  readonly wireType: number;
  readonly data: Uint8Array;
}

function writeUnknown(unknown: readonly UnknownField[]): void {
  for (const { no, wireType, data } of unknown) {
    writeVarint(((no << 3) | wireType) >>> 0);
    writeBytes(data);
  }
}

function writeBytes(bytes: Uint8Array): void {
  if (at + bytes.length > block.length) grow(bytes.length);
  block.set(bytes, at);
  at += bytes.length;
}

function compileField(field: DescField): WriteField {
  const name = field.localName;
  switch (field.fieldKind) {
    case "list":
      return compileList(field);
    case "map":
      return compileMap(field);
    default: {
      const write = withTag(field.number, wireTypeOfValue(field), compileValue(field, field.oneof === undefined));
      if (field.oneof !== undefined) {
        const group = field.oneof.localName;
        return (message) => {
          const chosen = message[group] as { case?: unknown; value?: unknown } | undefined;
          if (chosen !== undefined && chosen !== null && chosen.case === name) write(chosen.value);
        };
      }
      if (field.presence === FeatureSet_FieldPresence.IMPLICIT) return compileImplicit(field, write);
      return (message) => {
        const value = message[name];
        // A message of protobuf-es may have the default on its prototype.
        if (value !== undefined && value !== null && Object.hasOwn(message, name)) write(value);
      };
    }
  }
}

/** Compiles a field that is not written if it is zero. */
function compileImplicit(field: DescField & { fieldKind: "scalar" | "enum" | "message" }, write: Write): WriteField {
  const name = field.localName;
  if (field.fieldKind === "scalar") {
    switch (field.scalar) {
      case ScalarType.STRING:
        return (message) => {
          const value = message[name];
          if (value !== "" && value !== undefined && value !== null) write(value);
        };
      case ScalarType.BYTES:
        return (message) => {
          const value = message[name];
          if (value !== undefined && value !== null && (value as Uint8Array).length !== 0) write(value);
        };
      case ScalarType.DOUBLE:
      case ScalarType.FLOAT:
        return (message) => {
          const value = message[name];
          // -0 is not 0.
          if (value !== undefined && value !== null && !Object.is(value, 0)) write(value);
        };
      default:
        break;
    }
  }
  const zero = field.fieldKind === "enum" ? field.enum.values[0]!.number : 0;
  return (message) => {
    const value = message[name];
    if (value === undefined || value === null || value === zero || value === false || value === 0n || value === "0") {
      return;
    }
    write(value);
  };
}

function withTag(number: number, wireType: number, write: Write): Write {
  const tag = ((number << 3) | wireType) >>> 0;
  if (tag < 0x80) {
    return (value) => {
      if (at === block.length) grow(1);
      block[at++] = tag;
      write(value);
    };
  }
  return (value) => {
    writeVarint(tag);
    write(value);
  };
}

/** Writes the value of a field, an element of a list, or a value in a map. */
function compileValue(field: DescField, unwrapped: boolean): Write {
  if (field.message !== undefined) return compileMessage(field.message, unwrapped);
  return scalarWriters[field.enum !== undefined ? ScalarType.INT32 : field.scalar!];
}

/** @param unwrapped true if the value replaces its wrapper, such as StringValue, as in protobuf-es */
function compileMessage(schema: DescMessage, unwrapped: boolean): Write {
  let write: WriteField | undefined;
  const isWrapped = unwrapped && isWrapperDesc(schema);
  return withLength((value) => {
    write ??= writerOf(schema);
    write((isWrapped ? { value } : value) as Fields);
  });
}

/** Writes a value with its length before it. */
function withLength(write: Write): Write {
  return (value) => {
    if (at + 5 > block.length) grow(5);
    // Most values have less than 128 bytes, whose length takes one byte.
    const start = at++;
    write(value);
    const length = at - start - 1;
    if (length < 0x80) {
      block[start] = length;
      return;
    }
    if (at + 4 > block.length) grow(4);
    const lengthBytes = length < 0x4000 ? 2 : length < 0x20_0000 ? 3 : length < 0x1000_0000 ? 4 : 5;
    block.copyWithin(start + lengthBytes, start + 1, at);
    at = start;
    writeVarint(length);
    at += length;
  };
}

function compileList(field: DescField & { fieldKind: "list" }): WriteField {
  const name = field.localName;
  const write = compileValue(field, false);
  const writeList = field.packed
    ? withTag(field.number, wireTypes.lengthAndBytes, withLength(each(write)))
    : each(withTag(field.number, wireTypeOfValue(field), write));
  return (message) => {
    const values = message[name];
    if (values === undefined || values === null) return;
    if (!Array.isArray(values)) throw wrongType;
    if (values.length > 0) writeList(values);
  };
}

function each(write: Write): Write {
  return (given) => {
    const values = given as unknown[];
    for (let index = 0; index < values.length; index++) write(values[index]);
  };
}

function compileMap(field: DescField & { fieldKind: "map" }): WriteField {
  const name = field.localName;
  const writeKey = withTag(1, wireTypeOf(field.mapKey), scalarWriters[field.mapKey]);
  const writeValue = withTag(2, wireTypeOfValue(field), compileValue(field, false));
  const writeEntry = withTag(
    field.number,
    wireTypes.lengthAndBytes,
    withLength((entry) => {
      const [key, value] = entry as [string, unknown];
      writeKey(keyOf(field.mapKey, key));
      writeValue(value);
    }),
  );
  return (message) => {
    const values = message[name];
    if (values === undefined || values === null) return;
    if (typeof values !== "object") throw wrongType;
    for (const entry of Object.entries(values)) writeEntry(entry);
  };
}

/** Writes an integer of up to 32 bits. */
function writeVarint(value: number): void {
  if (at + 5 > block.length) grow(5);
  while (value > 0x7f) {
    block[at++] = (value & 0x7f) | 0x80;
    value >>>= 7;
  }
  block[at++] = value;
}

/** Halves of a 64-bit integer. */
const halves = new Uint32Array(2);
const asBigInt = new BigUint64Array(halves.buffer);

/** @throws {@link wrongType} if the value is not an integer of 64 bits */
function split(value: unknown, isSigned: boolean): void {
  let long: bigint;
  if (typeof value === "bigint") long = value;
  else if (typeof value === "number" && Number.isSafeInteger(value)) long = BigInt(value);
  // A string, with `jstype = JS_STRING`.
  else if (typeof value === "string" && /^-?[0-9]{1,20}$/.test(value)) long = BigInt(value);
  else throw wrongType;
  const kept = isSigned ? BigInt.asIntN(64, long) : BigInt.asUintN(64, long);
  if (kept !== long) throw wrongType;
  asBigInt[0] = long;
}

function writeLong(low: number, high: number): void {
  if (at + 10 > block.length) grow(10);
  while (high > 0) {
    block[at++] = (low & 0x7f) | 0x80;
    low = ((low >>> 7) | (high << 25)) >>> 0;
    high >>>= 7;
  }
  writeVarint(low);
}

function writeFixed64(): void {
  if (at + 8 > block.length) grow(8);
  view.setUint32(at, halves[0]!, true);
  view.setUint32(at + 4, halves[1]!, true);
  at += 8;
}

/** Length in UTF-16 units up to which a loop is faster than a call into the runtime. */
const shortText = 42;

function writeString(value: unknown): void {
  if (typeof value !== "string") throw wrongType;
  const { length } = value;
  if (length <= shortText) {
    if (at + length + 1 > block.length) grow(length + 1);
    let end = at + 1;
    let index = 0;
    for (; index < length; index++) {
      const unit = value.charCodeAt(index);
      if (unit > 0x7f) break;
      block[end++] = unit;
    }
    if (index === length) {
      block[at] = length;
      at = end;
      return;
    }
  }
  // An unpaired surrogate has no UTF-8.
  if (!(value as string & { isWellFormed(): boolean }).isWellFormed()) throw wrongType;
  const bytes = Buffer.byteLength(value);
  writeVarint(bytes);
  if (at + bytes > block.length) grow(bytes);
  at += block.write(value, at, "utf8");
}

const scalarWriters: Readonly<Record<ScalarType, Write>> = {
  [ScalarType.STRING]: writeString,
  [ScalarType.BYTES]: (value) => {
    if (!(value instanceof Uint8Array)) throw wrongType;
    writeVarint(value.length);
    writeBytes(value);
  },
  [ScalarType.BOOL]: (value) => {
    if (typeof value !== "boolean") throw wrongType;
    if (at === block.length) grow(1);
    block[at++] = value ? 1 : 0;
  },
  [ScalarType.INT32]: (value) => {
    if (typeof value !== "number" || (value | 0) !== value) throw wrongType;
    if (value < 0) writeLong(value >>> 0, 0xffff_ffff);
    else writeVarint(value);
  },
  [ScalarType.UINT32]: (value) => {
    if (typeof value !== "number" || value >>> 0 !== value) throw wrongType;
    writeVarint(value);
  },
  [ScalarType.SINT32]: (value) => {
    if (typeof value !== "number" || (value | 0) !== value) throw wrongType;
    writeVarint(((value << 1) ^ (value >> 31)) >>> 0);
  },
  [ScalarType.FIXED32]: (value) => {
    if (typeof value !== "number" || value >>> 0 !== value) throw wrongType;
    if (at + 4 > block.length) grow(4);
    view.setUint32(at, value, true);
    at += 4;
  },
  [ScalarType.SFIXED32]: (value) => {
    if (typeof value !== "number" || (value | 0) !== value) throw wrongType;
    if (at + 4 > block.length) grow(4);
    view.setInt32(at, value, true);
    at += 4;
  },
  [ScalarType.FLOAT]: (value) => {
    if (typeof value !== "number") throw wrongType;
    if (at + 4 > block.length) grow(4);
    view.setFloat32(at, value, true);
    at += 4;
  },
  [ScalarType.DOUBLE]: (value) => {
    if (typeof value !== "number") throw wrongType;
    if (at + 8 > block.length) grow(8);
    view.setFloat64(at, value, true);
    at += 8;
  },
  [ScalarType.INT64]: (value) => {
    split(value, true);
    writeLong(halves[0]!, halves[1]!);
  },
  [ScalarType.UINT64]: (value) => {
    split(value, false);
    writeLong(halves[0]!, halves[1]!);
  },
  [ScalarType.SINT64]: (value) => {
    split(value, true);
    const [low, high] = [halves[0]!, halves[1]!];
    const sign = (high | 0) >> 31;
    writeLong(((low << 1) ^ sign) >>> 0, (((high << 1) | (low >>> 31)) ^ sign) >>> 0);
  },
  [ScalarType.FIXED64]: (value) => {
    split(value, false);
    writeFixed64();
  },
  [ScalarType.SFIXED64]: (value) => {
    split(value, true);
    writeFixed64();
  },
};
