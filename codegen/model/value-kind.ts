import { type DescField, ScalarType } from "@bufbuild/protobuf";
import { FieldOptions_JSType } from "@bufbuild/protobuf/wkt";

/**
 * Kind of a value for rules, TypeScript and SQL. `number` is an integer of up to 32 bits, or one of 64 bits that the
 * spec limits to 2^53 (`jstype = JS_NUMBER`); `bigint` is any other integer of 64 bits; `real` is float and double,
 * which rules and columns do not support.
 */
export type ValueKind =
  | "number"
  | "bigint"
  | "string"
  | "bytes"
  | "boolean"
  | "timestamp"
  | "json"
  | "enum"
  | "message"
  | "real";

/** Least and greatest value of an integer type. */
export interface IntegerRange {
  readonly min: bigint;
  readonly max: bigint;
}

export const int16Range: IntegerRange = { min: -(2n ** 15n), max: 2n ** 15n - 1n };
export const int32Range: IntegerRange = { min: -(2n ** 31n), max: 2n ** 31n - 1n };
export const int64Range: IntegerRange = { min: -(2n ** 63n), max: 2n ** 63n - 1n };
const uint32Range: IntegerRange = { min: 0n, max: 2n ** 32n - 1n };
const uint64Range: IntegerRange = { min: 0n, max: 2n ** 64n - 1n };
const safeMax = BigInt(Number.MAX_SAFE_INTEGER);

const timestampType = "google.protobuf.Timestamp";

/** Kind of a field's value; for a repeated field, of one element. Undefined for a map. */
export function valueKindOf(field: DescField): ValueKind | undefined {
  if (field.fieldKind === "map") {
    return undefined;
  }
  if (field.message !== undefined) {
    return field.message.typeName === timestampType ? "timestamp" : "message";
  }
  if (field.enum !== undefined) {
    return "enum";
  }
  switch (field.scalar) {
    case ScalarType.STRING:
      return "string";
    case ScalarType.BYTES:
      return "bytes";
    case ScalarType.BOOL:
      return "boolean";
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return "real";
    default:
      return isLong(field.scalar) && !isSafeInteger(field) ? "bigint" : "number";
  }
}

/** True if the spec limits a 64-bit field to exact JavaScript numbers: `jstype = JS_NUMBER`. */
export function isSafeInteger(field: DescField): boolean {
  return field.proto.options?.jstype === FieldOptions_JSType.JS_NUMBER;
}

/** Range of a field's type; undefined for anything but an integer type or enum. */
export function integerRangeOf(field: DescField): IntegerRange | undefined {
  if (field.fieldKind === "map" || field.message !== undefined) {
    return undefined;
  }
  if (field.enum !== undefined) {
    return int32Range;
  }
  switch (field.scalar) {
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return uint32Range;
    case ScalarType.INT32:
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
      return int32Range;
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return isSafeInteger(field) ? { min: 0n, max: safeMax } : uint64Range;
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return isSafeInteger(field) ? { min: -safeMax, max: safeMax } : int64Range;
    default:
      return undefined;
  }
}

/** Field type as the spec writes it: `uint64`, `repeated bytes`, `map<string, int32>`. */
export function specTypeOf(field: DescField): string {
  if (field.fieldKind === "map") {
    return `map<${scalarName(field.mapKey)}, ${field.message?.name ?? field.enum?.name ?? scalarName(field.scalar)}>`;
  }
  const one = field.message?.name ?? field.enum?.name ?? scalarName(field.scalar);
  return field.fieldKind === "list" ? `repeated ${one}` : one;
}

function scalarName(scalar: ScalarType | undefined): string {
  return scalar === undefined ? "unknown" : ScalarType[scalar]!.toLowerCase();
}

function isLong(scalar: ScalarType): boolean {
  return [ScalarType.INT64, ScalarType.UINT64, ScalarType.SINT64, ScalarType.FIXED64, ScalarType.SFIXED64].includes(
    scalar,
  );
}
