import type { DescField, DescMessage } from "@bufbuild/protobuf";
import { isUnsigned, kindOfSqlType, rangeOfSqlType, readSqlType, type SqlType } from "./column-type.js";
import { commentOf } from "./comments.js";
import { refuseOption } from "./foreign-option.js";
import { functionIdentifier, sqlIdentifier } from "./names.js";
import type { SpecOptions } from "./options.js";
import { type Rules, readRules } from "./rules.js";
import { SpecError } from "./spec-error.js";
import type { IntegerRange, ValueKind } from "./value-kind.js";

/** Column of a table, or parameter or result column of a function. */
export interface Column {
  readonly field: DescField;
  readonly name: string;
  readonly type: SqlType;
  /** True if the column is an array of `type`. */
  readonly repeated: boolean;
  readonly nullable: boolean;
  /** Default, as an SQL expression. */
  readonly default?: string;
  /** Expression of a stored generated column. */
  readonly generated?: string;
  /** Column of the table that a view's column shows, where its name differs. */
  readonly source?: string;
  /** True if Postgres stores long values without compression. */
  readonly uncompressed: boolean;
  /** Kind of one value, or of one element of an array. */
  readonly kind: ValueKind;
  /** Range of an integer type. */
  readonly range: IntegerRange | undefined;
  readonly rules: Rules;
  readonly comment: string;
}

/** Reads the columns of a table: the fields of its message, in the order of their declaration. */
export function readTableColumns(message: DescMessage, options: SpecOptions): Column[] {
  return message.fields.map((field) => {
    const column = readColumn(field, options);
    if (column.default !== undefined && column.generated !== undefined) {
      throw new SpecError(field, "a generated column cannot have a default");
    }
    refuseSource(column, false);
    if (column.uncompressed && column.type !== "bytea" && column.type !== "text") {
      throw new SpecError(
        field,
        `a column of type ${typeName(column)} cannot be uncompressed; only text and bytea can`,
      );
    }
    if (column.type === "bigserial" && (column.nullable || column.default !== undefined)) {
      throw new SpecError(field, "a bigserial column has its sequence as default and is never NULL");
    }
    return column;
  });
}

/**
 * Reads the parameters or result columns of a function, which are not stored and so have no defaults.
 *
 * @param checked true if the function checks their rules; otherwise rules are refused
 * @param showsTable true for the columns of a view of a table
 */
export function readValueColumns(
  message: DescMessage,
  options: SpecOptions,
  checked: boolean,
  showsTable = false,
): Column[] {
  return message.fields.map((field) => {
    functionIdentifier(field, "column name", field.name);
    const column = readColumn(field, options, checked);
    refuseSource(column, showsTable);
    if (column.default !== undefined || column.generated !== undefined || column.type === "bigserial") {
      throw new SpecError(field, "a parameter or result of a function has no default, generated value or sequence");
    }
    if (column.uncompressed) {
      throw new SpecError(field, "a parameter or result of a function is not stored, so it cannot be uncompressed");
    }
    if (!checked && options.rules(field) !== undefined) {
      throw new SpecError(
        field,
        "rules on a result, or on a parameter of a function that no role executes, would not be checked",
      );
    }
    return column;
  });
}

function refuseSource({ field, source }: Column, showsTable: boolean): void {
  if (source !== undefined && !showsTable)
    throw new SpecError(field, "only a column of a view of a table has a source");
}

/** SQL type as it is written: `bytea`, `integer[]`. */
export function typeName(column: Column): string {
  return column.repeated ? `${column.type}[]` : column.type;
}

/**
 * Cast of a parameter `$n` to this SQL type. JSON is cast from text, because Postgres.js would encode a JSON parameter
 * once more.
 */
export function parameterCast(sqlType: string): string {
  return sqlType.replace(/^jsonb?(\[\])?$/, "text$1::$&");
}

function readColumn(field: DescField, options: SpecOptions, isParameter = false): Column {
  if (field.oneof !== undefined) {
    throw new SpecError(field, `a column cannot be part of oneof ${field.oneof.name}; use optional fields and a check`);
  }
  refuseOption(field, "setting", options.setting(field));
  const option = options.column(field);
  const type = readSqlType(field, option?.type ?? "");
  const repeated = field.fieldKind === "list";
  const kind = kindOfSqlType(type);
  const range = rangeOfSqlType(type);
  const rules = readRules(field, options, { kind, repeated, range, isParameter });
  return {
    field,
    name: sqlIdentifier(field, "column name", field.name),
    type,
    repeated,
    nullable: field.proto.proto3Optional,
    ...(option?.default ? { default: option.default } : {}),
    ...(option?.generated ? { generated: option.generated } : {}),
    ...(option?.source ? { source: option.source } : {}),
    uncompressed: option?.uncompressed ?? false,
    kind,
    range,
    rules: isUnsigned(field) && !repeated && rules.min === undefined ? { ...rules, min: 0n } : rules,
    comment: commentOf(field),
  };
}
