import { type DescField, ScalarType } from "@bufbuild/protobuf";
import { SpecError } from "./spec-error.js";
import {
  type IntegerRange,
  int16Range,
  int32Range,
  int64Range,
  specTypeOf,
  type ValueKind,
  valueKindOf,
} from "./value-kind.js";

/** SQL types that a column can have. */
const sqlTypes = [
  "smallint",
  "integer",
  "bigint",
  "bigserial",
  "text",
  "bytea",
  "boolean",
  "timestamptz",
  "jsonb",
  "xid8",
  "pg_snapshot",
  "int8multirange",
  "tid",
] as const;

export type SqlType = (typeof sqlTypes)[number];

const kindOfType: Record<SqlType, ValueKind> = {
  smallint: "number",
  integer: "number",
  bigint: "bigint",
  bigserial: "bigint",
  text: "string",
  bytea: "bytes",
  boolean: "boolean",
  timestamptz: "timestamp",
  jsonb: "json",
  xid8: "string",
  pg_snapshot: "string",
  int8multirange: "string",
  tid: "string",
};

const rangeOfType: Partial<Record<SqlType, IntegerRange>> = {
  smallint: int16Range,
  integer: int32Range,
  bigint: int64Range,
  bigserial: int64Range,
};

/** Kind of the type's values in TypeScript and in rules. */
export function kindOfSqlType(type: SqlType): ValueKind {
  return kindOfType[type];
}

/** Range of an integer type; undefined for other types. */
export function rangeOfSqlType(type: SqlType): IntegerRange | undefined {
  return rangeOfType[type];
}

/**
 * True if the field's type is unsigned. SQL's types are signed, so its column needs a check against negative values.
 */
export function isUnsigned(field: DescField): boolean {
  return field.scalar === ScalarType.UINT32 || field.scalar === ScalarType.UINT64;
}

/**
 * SQL type of a field: the type that the option names, else the default of the field's type.
 *
 * @throws SpecError if the option names an unknown type or a type that cannot hold the field's values, or if no column
 * can have the field's type.
 */
export function readSqlType(field: DescField, named: string): SqlType {
  if (named !== "" && !(sqlTypes as readonly string[]).includes(named)) {
    throw new SpecError(field, `unknown column type "${named}"; use one of ${sqlTypes.join(", ")}`);
  }
  const fitting = fittingTypes(field);
  if (fitting.length === 0) {
    throw new SpecError(
      field,
      `a column cannot be ${specTypeOf(field)}; ` +
        "use int32, uint32, int64, uint64, string, bytes, bool or google.protobuf.Timestamp, or a list of one of them",
    );
  }
  if (named === "") {
    return fitting[0]!;
  }
  if (!fitting.includes(named as SqlType)) {
    throw new SpecError(field, `column type ${named} cannot hold ${specTypeOf(field)}; use ${fitting.join(" or ")}`);
  }
  return named as SqlType;
}

/** SQL types that hold a field's values, the default first. */
function fittingTypes(field: DescField): readonly SqlType[] {
  if (valueKindOf(field) === "timestamp") {
    return ["timestamptz"];
  }
  switch (field.fieldKind === "map" ? undefined : field.scalar) {
    case ScalarType.INT32:
    case ScalarType.UINT32:
      return ["integer", "smallint", "bigint"];
    case ScalarType.INT64:
    case ScalarType.UINT64:
      return ["bigint", "bigserial"];
    case ScalarType.STRING:
      return ["text", "jsonb", "xid8", "pg_snapshot", "int8multirange", "tid"];
    case ScalarType.BYTES:
      return ["bytea"];
    case ScalarType.BOOL:
      return ["boolean"];
    default:
      return [];
  }
}
