import type { Column } from "../model/columns.js";
import { sqlIdentifier } from "../model/names.js";
import type { Rules } from "../model/rules.js";
import type { Table } from "../model/tables.js";
import { sqlString } from "./literal.js";

/** Named constraint with its definition, such as `CHECK (v >= 0)`. */
export interface Constraint {
  readonly name: string;
  readonly definition: string;
}

/**
 * CHECK constraints of a column's rules, one for each rule, so that an error names the broken rule. NULL passes all of
 * them, because the column may be nullable.
 */
export function columnChecks(table: Table, column: Column): Constraint[] {
  const { maxItems, in: values } = column.rules;
  const conditions = {
    ...columnLimits(column.name, column.rules),
    values: values && `${column.name} IN (${values.map(sqlString).join(", ")})`,
    items: maxItems === undefined ? undefined : `cardinality(${column.name}) <= ${maxItems}`,
  };
  return Object.entries(conditions).flatMap(([rule, condition]) => {
    if (condition === undefined) return [];
    const name = sqlIdentifier(column.field, "constraint name", `${table.name}_${column.name}_${rule}`);
    return [{ name, definition: `CHECK (${condition})` }];
  });
}

/** Conditions for a value's rules; NULL passes them. */
export function columnLimits(name: string, { min, max, minBytes, maxBytes, pattern }: Rules) {
  return {
    range: limits(name, min, max),
    bytes: limits(`octet_length(${name})`, minBytes || undefined, maxBytes),
    pattern: pattern && `${name} ~ ${sqlString(pattern.source)}`,
  };
}

function limits(value: string, min: bigint | number | undefined, max: bigint | number | undefined): string | undefined {
  if (min !== undefined && max !== undefined) {
    return min === max ? `${value} = ${min}` : `${value} BETWEEN ${min} AND ${max}`;
  }
  if (min !== undefined) {
    return `${value} >= ${min}`;
  }
  return max === undefined ? undefined : `${value} <= ${max}`;
}
