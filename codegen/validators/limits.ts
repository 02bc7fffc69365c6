import { camelCase } from "../model/names.js";
import type { Rules } from "../model/rules.js";
import type { ValueKind } from "../model/value-kind.js";
import { docstring, propertyName } from "../print.js";

/** A value's name, kind and rules. */
export interface Limited {
  readonly name: string;
  readonly kind: ValueKind | undefined;
  readonly rules: Rules;
}

/** Prints `export const limits`, the numbers of all rules: `limits.Hello.senderName.maxBytes`. */
export function printLimits(owners: readonly { readonly name: string; readonly values: readonly Limited[] }[]): string {
  const groups = owners.flatMap(({ name, values }) => {
    const lines = values.flatMap((value) => limitLine(value) ?? []);
    return lines.length === 0 ? [] : [`  ${propertyName(name)}: {\n${lines.join("")}  },\n`];
  });
  return `${docstring("The limits of each field as numbers.")}export const limits = {\n${groups.join("")}} as const;\n`;
}

function limitLine({ name, kind, rules }: Limited): string | undefined {
  const suffix = kind === "bigint" ? "n" : "";
  const entries = [
    ["min", rules.min === undefined ? undefined : `${rules.min}${suffix}`],
    ["max", rules.max === undefined ? undefined : `${rules.max}${suffix}`],
    ["minBytes", rules.minBytes],
    ["maxBytes", rules.maxBytes],
    ["maxItems", rules.maxItems],
  ].filter(([, limit]) => limit !== undefined);
  if (entries.length === 0) {
    return undefined;
  }
  return `    ${propertyName(camelCase(name))}: { ${entries.map(([key, limit]) => `${key}: ${limit}`).join(", ")} },\n`;
}
