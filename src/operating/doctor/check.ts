/** Checks that only query Postgres, and verdicts for errors of Postgres. */
import type pg from "pg";
import {
  filteredTable,
  isServerError,
  lacksPrivilege,
  queryCanceled,
  unfilteredSql,
} from "../../foundation/postgres/index.js";
import type { State } from "../installation/index.js";
import type { Check, Finding, Verdict } from "./examine.js";
import type { Facts } from "./facts.js";

/** Time limit of a check that only queries Postgres. */
export const catalogCheckMs = 6_000;

/** Creates a check that only queries Postgres. An error of Postgres becomes its verdict. */
export function catalogCheck(
  name: string,
  run: (signal: AbortSignal) => Promise<Verdict>,
  more: Partial<Pick<Check, "needs" | "explainedBy" | "timeoutMs" | "late">> = {},
): Check {
  return {
    name,
    timeoutMs: catalogCheckMs,
    ...more,
    run: (signal) => run(signal).catch(verdictOf),
  };
}

/**
 * Check that reports the faults of the installation that have its name.
 *
 * @param seen the result without a fault
 */
export function faultCheck(
  facts: Facts,
  name: string,
  seen: string | ((state: State) => string),
  more: Pick<Check, "needs" | "explainedBy">,
): Check {
  const run = async () => ({
    findings: await facts.findings(name),
    seen: typeof seen === "string" ? seen : seen(await facts.state()),
  });
  return catalogCheck(name, run, more);
}

/** Verdict with one error. */
export function failed(error: Omit<Finding, "severity">): Verdict {
  return { findings: [{ severity: "error", ...error }] };
}

/** Finding for a check over NATS that exceeds its time limit. */
export const natsHangs = {
  code: "nats_timeout",
  remedy: "Check whether the NATS server hangs, by `nats server ping` or its log",
} as const;

/** SQLSTATEs of missing tables, columns and functions. */
const undefinedObjects = ["42P01", "42703", "42883"];

/** Verdict for a failed statement. @throws the error if Postgres did not cause it */
function verdictOf(error: unknown): Verdict {
  if (!(error instanceof Error)) throw error;
  if (isServerError(error)) return ofServer(error);
  // Errors of the driver and its socket have no class of their own.
  if (!("code" in error) && !/^(Connection terminated|Client has|Client was|timeout|Query read)/.test(error.message))
    throw error;
  return failed({
    code: "store_failed",
    what: `the connection to Postgres ended: ${error.message}`,
    remedy: "Read the log of Postgres, and run `hawser doctor` again",
  });
}

function ofServer(error: pg.DatabaseError): Verdict {
  const { code = "", message } = error;
  const hidden = filteredTable(error);
  if (hidden !== undefined) return failed({ code: "store_failed", what: message, remedy: unfilteredSql(hidden) });
  if (lacksPrivilege(error)) return { notChecked: `this login may not read it: ${message}` };
  if (code === queryCanceled) {
    return failed({
      code: "store_failed",
      what: `a read-only statement timed out: ${message}`,
      remedy:
        "Find the session that holds the lock: SELECT pid, query FROM pg_stat_activity WHERE pid IN (SELECT unnest(pg_blocking_pids(pid)) FROM pg_stat_activity)",
    });
  }
  const what = undefinedObjects.includes(code)
    ? `the schema hawser differs from the one that this program expects: ${message}`
    : `Postgres refused a query: ${message}`;
  return failed({ code: "store_failed", what, remedy: "Run `hawser init` as the owner of the schema hawser" });
}
