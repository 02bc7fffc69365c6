/**
 * A check that asks Postgres alone, and what an error of Postgres means for it.
 */
import type pg from "pg";
import { doctorConstants } from "../../generated/ts/settings/nats.js";
import { isServerError } from "../postgres/index.js";
import type { Check, Finding, Verdict } from "./examine.js";

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

/** The verdict of a check that has found one error. */
export function failed(error: Omit<Finding, "severity">): Verdict {
  return { findings: [{ severity: "error", ...error }] };
}

/** What it means if a check over NATS takes too long. */
export const natsHangs = {
  code: "nats_timeout",
  remedy: "Check whether the NATS server hangs, by `nats server ping` or its log",
} as const;

/** SQLSTATEs. */
const insufficientPrivilege = "42501";
const queryCanceled = "57014";
const undefinedObjects = ["42P01", "42703", "42883"];

/** The verdict of a check whose statement has failed. @throws the error where that says nothing */
function verdictOf(error: unknown): Verdict {
  if (!(error instanceof Error)) throw error;
  if (isServerError(error)) return ofServer(error);
  // The driver's errors, and those of its socket, have no class of their own.
  if (!("code" in error) && !/^(Connection terminated|Client has|Client was|timeout|Query read)/.test(error.message))
    throw error;
  return failed({
    code: "store_failed",
    what: `the connection to Postgres ended: ${error.message}`,
    remedy: "Read the log of Postgres, and run `hawser doctor` again",
  });
}

function ofServer({ code = "", message }: pg.DatabaseError): Verdict {
  if (code === insufficientPrivilege) return { notChecked: `this login may not read it: ${message}` };
  if (code === queryCanceled) {
    return failed({
      code: "store_failed",
      what: `a statement that only reads took too long: ${message}`,
      remedy:
        "Find who holds the lock: SELECT pid, query FROM pg_stat_activity WHERE pid IN (SELECT unnest(pg_blocking_pids(pid)) FROM pg_stat_activity)",
    });
  }
  const what = undefinedObjects.includes(code)
    ? `the schema hawser is not as this program expects it: ${message}`
    : `Postgres refused what was asked: ${message}`;
  return failed({ code: "store_failed", what, remedy: "Run `hawser init` as the owner of the schema hawser" });
}
