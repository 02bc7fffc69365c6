import type { Column } from "../model/columns.js";
import type { MessageField } from "../model/messages.js";
import { pascalCase, typescriptName } from "../model/names.js";
import type { Rules } from "../model/rules.js";
import type { Setting } from "../model/settings.js";
import { type IntegerRange, integerRangeOf, isSafeInteger, type ValueKind } from "../model/value-kind.js";

/** A value with rules, wherever it stands: what the printed check functions are made from. */
export interface CheckedValue {
  /** The check function's name: `checkHelloSenderName`. */
  readonly functionName: string;
  /** The first part of a violation's path. */
  readonly path: string;
  /** Where the spec says it, for the docstring. */
  readonly origin: string;
  readonly comment: string;
  readonly kind: ValueKind;
  readonly repeated: boolean;
  /** What holds by the value's type alone, and is checked only where the type does not make sure of it. */
  readonly range: IntegerRange | undefined;
  /** The decoder makes sure of the type's range: it need not be checked. */
  readonly rangeIsSure: boolean;
  readonly rules: Rules;
}

/** A field of a frame; undefined where nothing needs to be checked. */
export function checkedField(field: MessageField): CheckedValue | undefined {
  const { required: _, ...rules } = field.rules;
  const min =
    rules.min !== undefined && field.range !== undefined && rules.min <= field.range.min ? undefined : rules.min;
  const limits = Object.values({ ...rules, min }).filter((limit) => limit !== undefined);
  if (limits.length === 0 || field.kind === undefined) {
    return undefined;
  }
  return {
    functionName: `check${typescriptName(field.field.parent)}${pascalCase(field.field.name)}`,
    path: field.name,
    origin: `${field.field.parent.name}.${field.field.name}`,
    comment: field.comment,
    kind: field.kind,
    repeated: field.repeated,
    range: field.range,
    // What is written comes from callers, who may have given a fraction where the encoder wants an integer.
    rangeIsSure: !isSafeInteger(field.field),
    rules,
  };
}

/** A column; undefined where its type says it all. */
export function checkedColumn(column: Column): CheckedValue | undefined {
  const { required: _, ...rules } = column.rules;
  const checkable = column.repeated
    ? rules.maxItems !== undefined
    : column.range !== undefined || column.kind === "string";
  if (!checkable && Object.keys(rules).length === 0) {
    return undefined;
  }
  return {
    functionName: `check${column.field.parent.name}${pascalCase(column.name)}`,
    path: column.name,
    origin: `${column.field.parent.name}.${column.name}`,
    comment: column.comment,
    kind: column.kind,
    repeated: column.repeated,
    range: column.range,
    rangeIsSure: false,
    rules,
  };
}

/** A setting: a number in TypeScript, whatever integer type the field has. */
export function checkedSetting(setting: Setting): CheckedValue {
  const { required: _, ...rules } = setting.rules;
  return {
    functionName: `check${setting.field.parent.name}${pascalCase(setting.field.name)}`,
    path: setting.name,
    origin: `${setting.field.parent.name}.${setting.field.name}`,
    comment: setting.comment,
    kind: setting.kind,
    repeated: false,
    range: integerRangeOf(setting.field),
    rangeIsSure: false,
    rules,
  };
}
