/**
 * What is known of the scalar types of Protobuf.
 */
import { type DescField, ScalarType } from "@bufbuild/protobuf";

/** How a value stands in the bytes. */
export const wireTypes = { varint: 0, eightBytes: 1, lengthAndBytes: 2, fourBytes: 5 } as const;

/** The wire type of a scalar. */
export function wireTypeOf(scalar: ScalarType): number {
  switch (scalar) {
    case ScalarType.STRING:
    case ScalarType.BYTES:
      return wireTypes.lengthAndBytes;
    case ScalarType.DOUBLE:
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return wireTypes.eightBytes;
    case ScalarType.FLOAT:
    case ScalarType.FIXED32:
    case ScalarType.SFIXED32:
      return wireTypes.fourBytes;
    default:
      return wireTypes.varint;
  }
}

/** The wire type of a field's value, of an element of a list, or of a value in a map. */
export function wireTypeOfValue(field: DescField): number {
  if (field.message !== undefined) return wireTypes.lengthAndBytes;
  return field.enum !== undefined ? wireTypes.varint : wireTypeOf(field.scalar!);
}

/** Whether it is an integer of 64 bits, which is a bigint in TypeScript. */
export function isLong(scalar: ScalarType): boolean {
  return (
    scalar === ScalarType.INT64 ||
    scalar === ScalarType.UINT64 ||
    scalar === ScalarType.SINT64 ||
    scalar === ScalarType.FIXED64 ||
    scalar === ScalarType.SFIXED64
  );
}

/** Whether it is an integer that may be negative. */
export function isSigned(scalar: ScalarType): boolean {
  return (
    scalar === ScalarType.INT32 ||
    scalar === ScalarType.SINT32 ||
    scalar === ScalarType.SFIXED32 ||
    scalar === ScalarType.INT64 ||
    scalar === ScalarType.SINT64 ||
    scalar === ScalarType.SFIXED64
  );
}

/**
 * The key of a map, which is the name of a property, as a value.
 *
 * @returns undefined if it is none of the type
 */
export function keyOf(scalar: ScalarType, property: string): string | number | bigint | boolean | undefined {
  if (scalar === ScalarType.STRING) return property;
  if (scalar === ScalarType.BOOL) return property === "true" ? true : property === "false" ? false : undefined;
  if (!/^-?[0-9]{1,20}$/.test(property)) return undefined;
  return isLong(scalar) ? BigInt(property) : Number(property);
}
