/**
 * Checks and their execution. One cause makes one finding: a check that needs a failed one is skipped, and an error
 * that a failed check explains is not reported. Each check has a time limit, and so has the whole examination.
 */
import type { ErrorCode } from "../../foundation/errors/index.js";
import { type Clock, inTime } from "../../foundation/runtime/index.js";

/** `error`: something does not work. `warning`: it works, but should be changed. `note`: worth knowing. */
export type Severity = "error" | "warning" | "note";

/** Result of a check that someone should know. It never contains a secret or a payload. */
export interface Finding {
  readonly severity: Severity;
  /** Error that the finding causes, which sets the exit status; absent if no code applies. */
  readonly code?: ErrorCode | undefined;
  /** Finding, with its values. */
  readonly what: string;
  /** Remedy: a command, a statement, or a page or log to read. */
  readonly remedy: string;
}

/** Result of a check. */
export interface Verdict {
  readonly findings?: readonly Finding[];
  /** Observation in a few words, shown if the check succeeds. */
  readonly seen?: string | undefined;
  /** Reason why the check, or a part of it, could not run; not a finding. */
  readonly notChecked?: string | undefined;
  /** True if the checked part does not exist and is optional, so that checks that need it are skipped. */
  readonly absent?: boolean | undefined;
}

/** Finding with the name of its check. */
export interface NamedFinding extends Finding {
  readonly check: string;
}

/** Outcome of a check. */
export interface CheckReport {
  readonly check: string;
  /**
   * `ok` even with notes. For `not_checked`, `why` has the reason; a partly checked part has both `why` and another
   * outcome.
   */
  readonly outcome: "ok" | "warning" | "error" | "not_checked";
  /** Observation of a check whose outcome is `ok`. */
  readonly seen?: string | undefined;
  readonly why?: string | undefined;
  /** Check that must succeed first: the root cause, through any number of checks in between. */
  readonly blockedBy?: string | undefined;
}

/** Result of an examination. */
export interface DoctorReport {
  /** True if no check has found an error. */
  readonly ok: boolean;
  /** Findings, errors first; those of one severity in the order of the checks, from the prerequisites to the details. */
  readonly findings: readonly NamedFinding[];
  readonly checks: readonly CheckReport[];
}

export interface Check {
  /** Kebab-case name, unique in the examination; other checks refer to it. */
  readonly name: string;
  /** Checks whose success this check requires: it is skipped if one of them has failed. */
  readonly needs?: readonly string[] | undefined;
  /** Checks whose failure would explain an error of this check, which is then not reported. */
  readonly explainedBy?: readonly string[] | undefined;
  /** Time limit in milliseconds. */
  readonly timeoutMs: number;
  /** Finding for an exceeded time limit; by default that Postgres hangs. */
  readonly late?: Pick<Finding, "code" | "remedy"> | undefined;
  /**
   * Runs the check. An exception ends the examination, so only defects are thrown.
   *
   * @param signal aborted at the time limit; the check then releases everything that hangs
   */
  run(signal: AbortSignal): Promise<Verdict>;
}

type State = "fine" | "failed" | "absent";

/** The worst first. */
const bySeverity: readonly Severity[] = ["error", "warning", "note"];

/**
 * Runs the checks one after another.
 *
 * @param totalMs time limit of the examination; remaining checks are skipped
 */
export async function examine(
  checks: readonly Check[],
  { totalMs, clock }: { readonly totalMs: number; readonly clock: Clock },
): Promise<DoctorReport> {
  const states = new Map<string, State>();
  /** Name of the root-cause check, by name of each check that was skipped or whose error is explained. */
  const causes = new Map<string, string>();
  const causeOf = (name: string): string => causes.get(name) ?? name;
  const findings: NamedFinding[] = [];
  const reports: CheckReport[] = [];
  const endAt = clock.now() + totalMs;
  for (const check of checks) {
    const { name } = check;
    const blocked = check.needs?.find((need) => (states.get(need) ?? "fine") !== "fine");
    if (blocked !== undefined) {
      states.set(name, states.get(blocked)!);
      const why = states.get(blocked) === "failed" ? `it needs ${blocked}` : `${blocked}: there is none`;
      causes.set(name, causeOf(blocked));
      reports.push({ check: name, outcome: "not_checked", why, blockedBy: causeOf(blocked) });
      continue;
    }
    const remainingMs = endAt - clock.now();
    if (remainingMs <= 0) {
      reports.push({
        check: name,
        outcome: "not_checked",
        why: `the time limit of all checks, ${totalMs} ms, was over`,
      });
      continue;
    }
    const verdict = await verdictOf(check, Math.min(check.timeoutMs, remainingMs), clock);
    const fails = (verdict.findings ?? []).some(({ severity }) => severity === "error");
    const cause = fails ? check.explainedBy?.find((other) => states.get(other) === "failed") : undefined;
    states.set(name, fails ? "failed" : verdict.absent === true ? "absent" : "fine");
    if (cause !== undefined) {
      causes.set(name, causeOf(cause));
      reports.push({
        check: name,
        outcome: "not_checked",
        why: `run again once \`${causeOf(cause)}\` succeeds`,
      });
      continue;
    }
    findings.push(...(verdict.findings ?? []).map((finding) => ({ check: name, ...finding })));
    reports.push(reportOf(name, verdict));
  }
  findings.sort((a, b) => bySeverity.indexOf(a.severity) - bySeverity.indexOf(b.severity));
  return { ok: !findings.some(({ severity }) => severity === "error"), findings, checks: reports };
}

function reportOf(check: string, { findings = [], seen, notChecked }: Verdict): CheckReport {
  const severities = findings.map(({ severity }) => severity);
  const found = (["error", "warning"] as const).find((severity) => severities.includes(severity));
  const outcome = found ?? (notChecked !== undefined && seen === undefined ? "not_checked" : "ok");
  return { check, outcome, seen: outcome === "ok" ? seen : undefined, why: notChecked };
}

/** Verdict of the check, or an error if it exceeds its time limit. */
async function verdictOf(check: Check, timeoutMs: number, clock: Clock): Promise<Verdict> {
  const late = new Error(`the time of the check ${check.name} is over`);
  try {
    return await inTime(
      timeoutMs,
      () => late,
      (signal) => check.run(signal),
      clock,
    );
  } catch (error) {
    if (error !== late) throw error;
    return { findings: [lateFinding(check, timeoutMs)] };
  }
}

const postgresHangs = {
  code: "store_failed",
  remedy:
    "Look at the sessions of Postgres, and which wait for others: SELECT * FROM pg_stat_activity WHERE state <> 'idle'",
} as const;

function lateFinding({ name, late = postgresHangs }: Check, timeoutMs: number): Finding {
  return { severity: "error", ...late, what: `the check ${name} did not finish within ${Math.round(timeoutMs)} ms` };
}
