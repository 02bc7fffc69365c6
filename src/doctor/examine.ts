/**
 * What a check is, and how checks are run, so that one cause makes one finding: a check that needs a failed one is left out,
 * and an error that a failed check explains is not told. Each check has a time limit, and so has all of it.
 */
import type { ErrorCode } from "../errors/index.js";
import { type Clock, inTime } from "../runtime/index.js";

/**
 * `error`: something does not work. `warning`: it works, and should be changed. `note`: it is as it may be, and good to
 * know.
 */
export type Severity = "error" | "warning" | "note";

/** Something that was found. No secret and no payload is ever part of it. */
export interface Finding {
  readonly severity: Severity;
  /** The error that comes of it, which gives the exit status; absent where there is no code for it. */
  readonly code?: ErrorCode | undefined;
  /** What is so, with its values. */
  readonly what: string;
  /** What to do about it: a command, a statement, or what to read. */
  readonly remedy: string;
}

/** What a check says. */
export interface Verdict {
  readonly findings?: readonly Finding[];
  /** What it saw, in a few words: shown where all is well. */
  readonly seen?: string | undefined;
  /** Why it could not check, or not everything; that is no finding. */
  readonly notChecked?: string | undefined;
  /** What it checks is not there, and need not be: so the checks that need it have nothing to do. */
  readonly absent?: boolean | undefined;
}

/** A finding, and the check that has it. */
export interface NamedFinding extends Finding {
  readonly check: string;
}

/** What became of a check. */
export interface CheckReport {
  readonly check: string;
  /** `ok` also where there were notes. `not_checked` says why in `why`; a check of a part has both. */
  readonly outcome: "ok" | "warning" | "error" | "not_checked";
  readonly seen?: string | undefined;
  readonly why?: string | undefined;
  /** The check that has to find first that all is well, or something at all: that of the cause, however many lie between. */
  readonly blockedBy?: string | undefined;
}

/** All of it. */
export interface DoctorReport {
  /** No check has found an error. */
  readonly ok: boolean;
  /** In the order of the checks, which goes from what all the rest needs to the details. */
  readonly findings: readonly NamedFinding[];
  readonly checks: readonly CheckReport[];
}

/** One check. */
export interface Check {
  /** Of words with hyphens; what others name it by. */
  readonly name: string;
  /** Checks without whose success this one can say nothing: it is left out if one of them has failed. */
  readonly needs?: readonly string[] | undefined;
  /** Checks whose failure would explain one of this: then it is not told. */
  readonly explainedBy?: readonly string[] | undefined;
  /** How long it may take. */
  readonly timeoutMs: number;
  /** What it means if it takes longer. Default: that Postgres hangs. */
  readonly late?: Pick<Finding, "code" | "remedy"> | undefined;
  /**
   * Checks. What it throws ends the examination, so it throws only defects.
   *
   * @param signal aborted when its time is over: whatever still hangs is to be let go
   */
  run(signal: AbortSignal): Promise<Verdict>;
}

type State = "fine" | "failed" | "absent";

/**
 * Runs the checks one after another.
 *
 * @param totalMs what is not done after so long is not done at all
 */
export async function examine(
  checks: readonly Check[],
  { totalMs, clock }: { readonly totalMs: number; readonly clock: Clock },
): Promise<DoctorReport> {
  const states = new Map<string, State>();
  /** By the checks that were not made, or whose errors are explained: the check of the cause. */
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
      reports.push({ check: name, outcome: "not_checked", why: `the ${totalMs} ms of all checks were over` });
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
        why: `to be checked once \`${causeOf(cause)}\` is in order`,
      });
      continue;
    }
    findings.push(...(verdict.findings ?? []).map((finding) => ({ check: name, ...finding })));
    reports.push(reportOf(name, verdict));
  }
  return { ok: !findings.some(({ severity }) => severity === "error"), findings, checks: reports };
}

function reportOf(check: string, { findings = [], seen, notChecked }: Verdict): CheckReport {
  const severities = findings.map(({ severity }) => severity);
  const found = (["error", "warning"] as const).find((severity) => severities.includes(severity));
  const outcome = found ?? (notChecked !== undefined && seen === undefined ? "not_checked" : "ok");
  return { check, outcome, seen, why: notChecked };
}

/** The verdict, or that there was none in time. */
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
    "Look at what Postgres is doing, and who waits for whom: SELECT * FROM pg_stat_activity WHERE state <> 'idle'",
} as const;

function lateFinding({ name, late = postgresHangs }: Check, timeoutMs: number): Finding {
  return { severity: "error", ...late, what: `the check ${name} had no answer within ${Math.round(timeoutMs)} ms` };
}
