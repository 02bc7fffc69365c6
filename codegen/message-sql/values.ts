/** SQL expressions that write and read a single value in the Protobuf wire format. */
import { ScalarType } from "@bufbuild/protobuf";
import { sqlString } from "../sql/literal.js";
import { qualified, type ValueKind } from "./model.js";
import { bytesLiteral, quoted, varintBytes } from "./names.js";
import type { SqlOptions } from "./options.js";

/** Wire types: varint, 8 bytes, length-delimited, 4 bytes. */
export type WireType = 0 | 1 | 2 | 5;

/** Name of a helper, with its schema. */
export function helperName(options: SqlOptions, name: string): string {
  return `${quoted(options.schema)}.${quoted(`hawser_${name}`)}`;
}

/** Wire type of a value. */
export function wireTypeOf(value: ValueKind): WireType {
  return value.kind === "scalar" ? scalarWireTypes[value.scalar] : value.kind === "enum" ? 0 : 2;
}

const scalarWireTypes: Readonly<Record<ScalarType, WireType>> = {
  [ScalarType.DOUBLE]: 1,
  [ScalarType.FLOAT]: 5,
  [ScalarType.INT32]: 0,
  [ScalarType.SINT32]: 0,
  [ScalarType.SFIXED32]: 5,
  [ScalarType.INT64]: 0,
  [ScalarType.SINT64]: 0,
  [ScalarType.SFIXED64]: 1,
  [ScalarType.UINT32]: 0,
  [ScalarType.FIXED32]: 5,
  [ScalarType.UINT64]: 0,
  [ScalarType.FIXED64]: 1,
  [ScalarType.BOOL]: 0,
  [ScalarType.STRING]: 2,
  [ScalarType.BYTES]: 2,
};

/**
 * Value in the form of its wire type: a bigint for a varint, otherwise bytea without the length.
 *
 * @param x expression for the value
 * @param field text with the field, for errors
 */
export function rawValue(options: SqlOptions, value: ValueKind, x: string, field: string): string {
  const helper = (name: string, ...rest: string[]): string => `${helperName(options, name)}(${rest.join(", ")})`;
  switch (value.kind) {
    case "enum":
      return `${qualified(options, `${value.enum.name}_number`)}(${x}, ${field})::bigint`;
    case "message":
      return `${qualified(options, `encode_${value.message.name}`)}(${x})`;
    case "timestamp":
      return helper("encode_timestamp", x, field);
    case "duration":
      return helper("encode_duration", x, field);
    case "wrapper": {
      const inner: ValueKind = { kind: "scalar", scalar: value.scalar };
      const tag = bytesOfTag(1, inner);
      return `CASE WHEN ${isNotZero(inner, x)} THEN ${tag} || ${wireValue(options, inner, x, field)} ELSE ''::bytea END`;
    }
  }
  switch (value.scalar) {
    case ScalarType.INT32:
      return `(${x})::bigint`;
    case ScalarType.INT64:
      return x;
    case ScalarType.UINT32:
      return helper("uint32", x, field);
    case ScalarType.UINT64:
      return helper("uint64", x, field);
    case ScalarType.SINT32:
    case ScalarType.SINT64:
      return `(((${x})::bigint << 1) # ((${x})::bigint >> 63))`;
    case ScalarType.BOOL:
      return `(${x})::integer::bigint`;
    case ScalarType.FIXED32:
      return helper("reversed", `substr(int8send(${helper("uint32", x, field)}), 5, 4)`);
    case ScalarType.FIXED64:
      return helper("reversed", `int8send(${helper("uint64", x, field)})`);
    case ScalarType.SFIXED32:
      return helper("reversed", `int4send(${x})`);
    case ScalarType.SFIXED64:
      return helper("reversed", `int8send(${x})`);
    case ScalarType.FLOAT:
      return helper("reversed", `float4send(${x})`);
    case ScalarType.DOUBLE:
      return helper("reversed", `float8send(${x})`);
    case ScalarType.STRING:
      return `convert_to(${x}, 'UTF8')`;
    case ScalarType.BYTES:
      return x;
  }
}

/** Bytes of a value on the wire, with its length if it is length-delimited, without the tag. */
export function wireValue(options: SqlOptions, value: ValueKind, x: string, field: string): string {
  const raw = rawValue(options, value, x, field);
  const form = { 0: "varint", 1: undefined, 2: "sized", 5: undefined }[wireTypeOf(value)];
  return form === undefined ? raw : `${helperName(options, form)}(${raw})`;
}

export function tagOf(number: number, wireType: WireType): number {
  return number * 8 + wireType;
}

/** Tag of a field as a bytes literal. */
export function bytesOfTag(number: number, value: ValueKind): string {
  return bytesLiteral(varintBytes(tagOf(number, wireTypeOf(value))));
}

/** Condition that a value is not the zero that a field without presence omits. NULL counts as zero. */
export function isNotZero(value: ValueKind, x: string): string {
  if (value.kind !== "scalar") return `${x} IS DISTINCT FROM NULL`;
  switch (value.scalar) {
    case ScalarType.STRING:
      return `${x} <> ''`;
    case ScalarType.BYTES:
      return `${x} <> ''::bytea`;
    case ScalarType.BOOL:
      return x;
    // Minus zero is encoded.
    case ScalarType.FLOAT:
      return `float4send(${x}) <> ${bytesLiteral([0, 0, 0, 0])}`;
    case ScalarType.DOUBLE:
      return `float8send(${x}) <> ${bytesLiteral(new Uint8Array(8))}`;
    default:
      return `${x} <> 0`;
  }
}

/** Zero of a scalar or an enum as a constant of its type; NULL for a message. */
export function zeroOf(value: ValueKind): string {
  if (value.kind === "enum") return sqlString(value.enum.desc.values.find(({ number }) => number === 0)!.name);
  if (value.kind !== "scalar") return "NULL";
  switch (value.scalar) {
    case ScalarType.STRING:
    case ScalarType.BYTES:
      return "''";
    case ScalarType.BOOL:
      return "false";
    default:
      return "0";
  }
}

/**
 * Reads a value.
 *
 * @param n expression for a varint, as a bigint
 * @param bytes expression for any other value, as bytea without the length
 */
export function readValue(options: SqlOptions, value: ValueKind, n: string, bytes: string): string {
  const helper = (name: string, x: string): string => `${helperName(options, name)}(${x})`;
  const int32 = (x: string): string => `(${x} << 32 >> 32)::integer`;
  switch (value.kind) {
    case "enum":
      return `${qualified(options, `${value.enum.name}_name`)}(${int32(n)})`;
    case "message":
      return `${qualified(options, `decode_${value.message.name}`)}(${bytes})`;
    case "timestamp":
    case "duration":
      return helper(`decode_${value.kind}`, bytes);
    case "wrapper":
      return helper(wrapperName(value.scalar), bytes);
  }
  switch (value.scalar) {
    case ScalarType.INT32:
      return int32(n);
    case ScalarType.INT64:
      return n;
    case ScalarType.UINT32:
      return `(${n} & 4294967295)`;
    case ScalarType.UINT64:
      return helper("unsigned", n);
    case ScalarType.SINT32:
      return int32(`(((${n} & 4294967295) >> 1) # (-(${n} & 1)))`);
    case ScalarType.SINT64:
      return `(((${n} >> 1) & 9223372036854775807) # (-(${n} & 1)))`;
    case ScalarType.BOOL:
      return `(${n} <> 0)`;
    case ScalarType.FIXED32:
      return helper("bits", bytes);
    case ScalarType.FIXED64:
      return helper("unsigned", helper("bits", bytes));
    case ScalarType.SFIXED32:
      return int32(helper("bits", bytes));
    case ScalarType.SFIXED64:
      return helper("bits", bytes);
    case ScalarType.FLOAT:
      return helper("float", helper("bits", bytes));
    case ScalarType.DOUBLE:
      return helper("double", helper("bits", bytes));
    case ScalarType.STRING:
      return `convert_from(${bytes}, 'UTF8')`;
    case ScalarType.BYTES:
      return bytes;
  }
}

/** Helper that reads a wrapper: `decode_string_value`. */
export function wrapperName(scalar: ScalarType): string {
  return `decode_${ScalarType[scalar].toLowerCase()}_value`;
}

/** Reads a value from protobuf JSON; `x` is a jsonb that is not null. */
export function jsonValue(options: SqlOptions, value: ValueKind, x: string): string {
  const helper = (name: string, ...rest: string[]): string => `${helperName(options, name)}(${rest.join(", ")})`;
  switch (value.kind) {
    case "enum":
      return `${qualified(options, `${value.enum.name}_json`)}(${x})`;
    case "message":
      return `${qualified(options, `from_json_${value.message.name}`)}(${x})`;
    case "timestamp":
    case "duration":
      return helper(`json_${value.kind}`, x);
  }
  switch (value.scalar) {
    case ScalarType.BOOL:
      return helper("json_boolean", x);
    case ScalarType.STRING:
      return helper("json_text", x);
    case ScalarType.BYTES:
      return helper("json_bytes", x);
    case ScalarType.DOUBLE:
      return helper("json_double", x);
    case ScalarType.FLOAT:
      return `${helper("json_double", x)}::real`;
    default: {
      const { min, max, type } = integerRanges[value.scalar];
      return `${helper("json_integer", x, min, max)}${type === "numeric" ? "" : `::${type}`}`;
    }
  }
}

const signed32 = { min: "-2147483648", max: "2147483647", type: "integer" };
const signed64 = { min: "-9223372036854775808", max: "9223372036854775807", type: "bigint" };
const unsigned32 = { min: "0", max: "4294967295", type: "bigint" };
const unsigned64 = { min: "0", max: "18446744073709551615", type: "numeric" };
const integerRanges = {
  [ScalarType.INT32]: signed32,
  [ScalarType.SINT32]: signed32,
  [ScalarType.SFIXED32]: signed32,
  [ScalarType.INT64]: signed64,
  [ScalarType.SINT64]: signed64,
  [ScalarType.SFIXED64]: signed64,
  [ScalarType.UINT32]: unsigned32,
  [ScalarType.FIXED32]: unsigned32,
  [ScalarType.UINT64]: unsigned64,
  [ScalarType.FIXED64]: unsigned64,
};
