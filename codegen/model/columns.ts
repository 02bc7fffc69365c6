import type { DescField, DescMessage } from "@bufbuild/protobuf";
import { isUnsigned, kindOfSqlType, rangeOfSqlType, readSqlType, type SqlType } from "./column-type.js";
import { commentOf } from "./comments.js";
import { sqlIdentifier } from "./names.js";
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
  return message.fields.map((field) => readColumn(field, options));
}

/**
 * Reads the parameters or result columns of a function, which are not stored and so have no defaults.
 *
 * @param checked true if the function checks their rules; otherwise rules are refused
 */
export function readValueColumns(message: DescMessage, options: SpecOptions, checked: boolean): Column[] {
  return message.fields.map((field) => {
    if (!checked && options.rules(field) !== undefined) {
      throw new SpecError(
        field,
        "rules on a result, or on a parameter of a function that no role executes, would not be checked",
      );
    }
    return readColumn(field, options, checked);
  });
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
  if (options.setting(field) !== undefined) {
    throw new SpecError(
      field,
      "the option setting has no meaning here; it belongs in a message with the option settings",
    );
  }
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
