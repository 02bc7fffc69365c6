/**
 * A check that asks Postgres and nobody else.
 */
import { doctorConstants } from "../../../generated/ts/settings/nats.js";
import type { Check } from "../examine.js";
import type { Finding, Verdict } from "../finding.js";
import { verdictOf } from "../refusals.js";

/** Makes one. What Postgres refuses becomes its verdict. */
export function catalogCheck(
  name: string,
  run: (signal: AbortSignal) => Promise<Verdict>,
  more: Partial<Pick<Check, "needs" | "explainedBy" | "timeoutMs" | "late">> = {},
): Check {
  return {
    name,
    timeoutMs: doctorConstants.catalogCheckMs,
    ...more,
    run: (signal) => run(signal).catch(verdictOf),
  };
}

/** What it means if a check over NATS takes too long. */
export const natsHangs = {
  code: "nats_timeout",
  remedy: "Look whether the NATS server hangs: nats server ping, or its log",
} as const;

/** A line of `hawser init` that ends with a statement, taken apart. */
export function findingOf(line: string, severity: Finding["severity"]): Finding {
  const parts = /^(.*?): ((?:REVOKE|ALTER ROLE|SET ROLE) .*)$/s.exec(line);
  if (parts === null) return { severity, what: line, remedy: "The line says what to do" };
  return { severity, what: parts[1]!, remedy: parts[2]! };
}

/** The first few, and how many more there are. */
export function someOf(items: readonly string[], most = 3): string {
  const more = items.length > most ? ` and ${items.length - most} more` : "";
  return `${items.slice(0, most).join(", ")}${more}`;
}

/** A time that has passed, for people. */
export function ago(seconds: number): string {
  const units = [
    ["d", 86_400],
    ["h", 3_600],
    ["min", 60],
  ] as const;
  const [unit, length] = units.find(([, unitSeconds]) => seconds >= 2 * unitSeconds) ?? (["s", 1] as const);
  return `${Math.max(0, Math.floor(seconds / length))} ${unit}`;
}
