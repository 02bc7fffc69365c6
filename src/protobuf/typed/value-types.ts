/** Finds the value of a wrong type in a message, after an encoding has failed. */
import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { isWrapperDesc } from "@bufbuild/protobuf/wkt";
import { type BrokenRule, shown } from "./check.js";
import { isLong, isSigned, keyOf } from "./scalars.js";

/** First value of a wrong type in an initializer of a message; undefined if all fit. */
export function wrongValue(schema: DescMessage, message: unknown): BrokenRule | undefined {
  if (typeof message !== "object" || message === null) return broken("", message, `must be a ${schema.typeName}`);
  const fields = message as Readonly<Record<string, unknown>>;
  const typeName = fields["$typeName"];
  if (typeName !== undefined && typeName !== schema.typeName) {
    return { path: "", value: `a message ${typeName}`, must: `must be a ${schema.typeName}`, rule: "type" };
  }
  for (const field of schema.fields) {
    const found = wrongInField(field, fieldValue(field, fields));
    if (found !== undefined) return found;
  }
  return undefined;
}

function fieldValue(field: DescField, fields: Readonly<Record<string, unknown>>): unknown {
  if (field.oneof === undefined) return fields[field.localName];
  const chosen = fields[field.oneof.localName] as { case?: unknown; value?: unknown } | undefined;
  return chosen?.case === field.localName ? (chosen.value ?? null) : undefined;
}

function wrongInField(field: DescField, value: unknown): BrokenRule | undefined {
  const { name } = field;
  // If a oneof has selected the field, it must have a value.
  if (value === undefined || (value === null && field.oneof === undefined)) return undefined;
  if (field.fieldKind === "list") {
    if (!Array.isArray(value)) return broken(name, value, "must be an array");
    for (const [index, element] of value.entries()) {
      const found = wrongInElement(field, `${name}[${index}]`, element, false);
      if (found !== undefined) return found;
    }
    return undefined;
  }
  if (field.fieldKind === "map") {
    if (typeof value !== "object" || value === null) return broken(name, value, "must be an object");
    for (const [key, element] of Object.entries(value)) {
      const path = `${name}[${JSON.stringify(key)}]`;
      const keyValue = keyOf(field.mapKey, key);
      if (keyValue === undefined) return broken(path, key, `must be ${wordsOf(field.mapKey)}`);
      const found = wrongScalar(path, field.mapKey, keyValue) ?? wrongInElement(field, path, element, false);
      if (found !== undefined) return found;
    }
    return undefined;
  }
  return wrongInElement(field, name, value, field.oneof === undefined);
}

function wrongInElement(field: DescField, path: string, value: unknown, unwrapped: boolean): BrokenRule | undefined {
  if (field.enum !== undefined) return wrongScalar(path, ScalarType.INT32, value);
  if (field.message === undefined) return wrongScalar(path, field.scalar!, value);
  const found = wrongValue(field.message, unwrapped && isWrapperDesc(field.message) ? { value } : value);
  if (found === undefined) return undefined;
  return {
    ...found,
    path: found.path === "" || (unwrapped && isWrapperDesc(field.message)) ? path : `${path}.${found.path}`,
  };
}

function wrongScalar(path: string, scalar: ScalarType, value: unknown): BrokenRule | undefined {
  return isOfType(scalar, value) ? undefined : broken(path, value, `must be ${wordsOf(scalar)}`);
}

function isOfType(scalar: ScalarType, value: unknown): boolean {
  switch (scalar) {
    case ScalarType.STRING:
      return typeof value === "string" && (value as string & { isWellFormed(): boolean }).isWellFormed();
    case ScalarType.BYTES:
      return value instanceof Uint8Array;
    case ScalarType.BOOL:
      return typeof value === "boolean";
    case ScalarType.FLOAT:
    case ScalarType.DOUBLE:
      return typeof value === "number";
    default:
      if (!isLong(scalar)) {
        return typeof value === "number" && (isSigned(scalar) ? (value | 0) === value : value >>> 0 === value);
      }
      try {
        const long = BigInt(value as bigint);
        return (isSigned(scalar) ? BigInt.asIntN(64, long) : BigInt.asUintN(64, long)) === long;
      } catch {
        return false;
      }
  }
}

/** Description of the values of a type in TypeScript. */
function wordsOf(scalar: ScalarType): string {
  switch (scalar) {
    case ScalarType.STRING:
      return "a string of well-formed Unicode";
    case ScalarType.BYTES:
      return "a Uint8Array";
    case ScalarType.BOOL:
      return "true or false";
    case ScalarType.FLOAT:
    case ScalarType.DOUBLE:
      return "a number";
    default: {
      const bits = isLong(scalar) ? 64 : 32;
      return `${isLong(scalar) ? "a bigint" : "an integer"} of ${bits} bits${isSigned(scalar) ? "" : ", 0 or more"}`;
    }
  }
}

function broken(path: string, value: unknown, must: string): BrokenRule {
  const text =
    typeof value === "object" && value !== null && !(value instanceof Uint8Array) ? "an object" : shown(value);
  return { path, value: text, must, rule: "type" };
}
