/**
 * What `hawser doctor` prints, and its exit status.
 */
import pc from "picocolors";
import type { CheckReport, DoctorReport, NamedFinding, Severity } from "../doctor/index.js";
import { errorTable } from "../errors/index.js";
import { withoutPasswords } from "./command-line.js";
import { plural, printable } from "./output.js";

/** Where an error has no code of its own, and for warnings. */
const generalStatus = 1;

/** Gives a failure, and looks good in the terminal. */
const heads: Readonly<Record<Severity, string>> = {
  error: pc.red("error  "),
  warning: pc.yellow("warning"),
  note: pc.cyan("note   "),
};

/** For people. */
export function doctorText(report: DoctorReport, { verbose }: { readonly verbose: boolean }): string {
  const { findings, checks } = report;
  return [
    ...(verbose ? checks.filter(({ seen, outcome }) => seen !== undefined && outcome === "ok").map(okLine) : []),
    ...findings.map(findingLines),
    ...notCheckedLines(checks),
    summary(report),
  ].join("\n");
}

/** For programs. */
export function doctorJson({ ok, findings, checks }: DoctorReport): object {
  return {
    ok,
    findings: findings.map(({ check, severity, code, what, remedy }) => ({
      check,
      severity,
      code: code ?? null,
      what: withoutPasswords(what),
      remedy: withoutPasswords(remedy),
    })),
    checks: checks.map(({ check, outcome, seen, why }) => ({ check, outcome, seen: seen ?? null, why: why ?? null })),
  };
}

/** That of the first error, which all that come after it may be due to; 0 where there are none, or only warnings. */
export function exitStatusFor({ findings }: DoctorReport, { strict }: { readonly strict: boolean }): number {
  const error = findings.find(({ severity }) => severity === "error");
  if (error !== undefined) return error.code === undefined ? generalStatus : errorTable[error.code].exitStatus;
  return strict && findings.some(({ severity }) => severity === "warning") ? generalStatus : 0;
}

function okLine({ check, seen }: CheckReport): string {
  return `${pc.green("ok     ")} ${check}: ${shown(seen!)}`;
}

function findingLines({ check, severity, code, what, remedy }: NamedFinding): string {
  const tail = code === undefined ? "" : ` ${pc.dim(`[${code}]`)}`;
  return `${heads[severity]} ${pc.bold(check)}: ${shown(what)}${tail}\n        what to do: ${shown(remedy)}`;
}

/** What only waits for the same other check is one line. */
function notCheckedLines(checks: readonly CheckReport[]): string[] {
  const named = checks.filter(({ why }) => why !== undefined);
  const waiting = new Map<string, string[]>();
  for (const { check, blockedBy } of named) {
    if (blockedBy !== undefined) waiting.set(blockedBy, [...(waiting.get(blockedBy) ?? []), check]);
  }
  const hasFailed = (name: string) => checks.some(({ check, outcome }) => check === name && outcome === "error");
  const others = named.filter(({ blockedBy }) => blockedBy === undefined);
  return [
    ...[...waiting].map(([name, names]) => {
      const why = hasFailed(name) ? `until \`${name}\` is in order` : `without what \`${name}\` looks for`;
      return `Not checked ${why}: ${names.join(", ")}`;
    }),
    ...others.map(({ check, why }) => `Not checked: ${check}: ${shown(why!)}`),
  ];
}

function summary({ findings, checks }: DoctorReport): string {
  const count = (severity: Severity) => findings.filter((finding) => finding.severity === severity).length;
  const found = (["error", "warning", "note"] as const).filter((severity) => count(severity) > 0);
  const looked = checks.filter(({ outcome }) => outcome !== "not_checked").length;
  if (found.length === 0) return `Nothing is wrong: ${plural(looked, "check")} of ${checks.length} found nothing.`;
  return `${found.map((severity) => plural(count(severity), severity)).join(", ")}; ${looked} of ${plural(checks.length, "check")} done.`;
}

function shown(text: string): string {
  return printable(withoutPasswords(text));
}
