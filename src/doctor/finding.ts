/**
 * What an examination finds, and what it says of each of its checks.
 */
import type { ErrorCode } from "../errors/index.js";

/**
 * `error`: something does not work. `warning`: it works, and should be looked at. `note`: it is as it may be, and good to
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
  /** What to do about it: a command, a statement, or where to look. */
  readonly remedy: string;
}

/** What a check says. */
export interface Verdict {
  readonly findings?: readonly Finding[];
  /** What it saw, in a few words, for who wants to know that all is well. */
  readonly seen?: string | undefined;
  /** Why it could not look, or not at everything; that is no finding. */
  readonly notChecked?: string | undefined;
  /** What it looks for is not there, and need not be: so the checks that need it have nothing to look at. */
  readonly absent?: boolean | undefined;
}

/** A finding, and the check that has it. */
export interface NamedFinding extends Finding {
  readonly check: string;
}

/** What became of a check. */
export interface CheckReport {
  readonly check: string;
  /** `ok` also where there were notes. `not_checked` says why in `why`; a check that looked at a part has both. */
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
