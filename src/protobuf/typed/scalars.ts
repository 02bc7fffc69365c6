/** Properties of the scalar types of Protobuf. */
import { type DescField, ScalarType } from "@bufbuild/protobuf";

/** Wire types of the Protobuf encoding. */
export const wireTypes = { varint: 0, eightBytes: 1, lengthAndBytes: 2, fourBytes: 5 } as const;

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

/** Wire type of a field's value, of an element of a list, or of a value in a map. */
export function wireTypeOfValue(field: DescField): number {
  if (field.message !== undefined) return wireTypes.lengthAndBytes;
  return field.enum !== undefined ? wireTypes.varint : wireTypeOf(field.scalar!);
}

const { INT32, SINT32, SFIXED32, UINT32, FIXED32, INT64, SINT64, SFIXED64, UINT64, FIXED64 } = ScalarType;
const signed: readonly ScalarType[] = [INT32, SINT32, SFIXED32, INT64, SINT64, SFIXED64];
const long: readonly ScalarType[] = [INT64, SINT64, SFIXED64, UINT64, FIXED64];

/** Integer types. */
export const integers: readonly ScalarType[] = [...signed, UINT32, FIXED32, UINT64, FIXED64];

/** True for an integer of 64 bits, which is a bigint in TypeScript. */
export function isLong(scalar: ScalarType): boolean {
  return long.includes(scalar);
}

/** True for an integer that may be negative. */
export function isSigned(scalar: ScalarType): boolean {
  return signed.includes(scalar);
}

/**
 * Converts a map key from its property name.
 *
 * @returns undefined if the name is not a value of the type
 */
export function keyOf(scalar: ScalarType, property: string): string | number | bigint | boolean | undefined {
  if (scalar === ScalarType.STRING) return property;
  if (scalar === ScalarType.BOOL) return property === "true" ? true : property === "false" ? false : undefined;
  if (!/^-?[0-9]{1,20}$/.test(property)) return undefined;
  return isLong(scalar) ? BigInt(property) : Number(property);
}
