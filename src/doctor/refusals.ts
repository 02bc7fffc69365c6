/**
 * What an error of Postgres means for a check.
 */

import type pg from "pg";
import { isServerError } from "../postgres/index.js";
import type { Verdict } from "./finding.js";

/** SQLSTATEs. */
const insufficientPrivilege = "42501";
const queryCanceled = "57014";
const undefinedObjects = ["42P01", "42703", "42883"];

/** The verdict of a check whose statement has failed. @throws the error where that says nothing */
export function verdictOf(error: unknown): Verdict {
  if (!(error instanceof Error)) throw error;
  if (isServerError(error)) return ofServer(error);
  // The driver's errors, and those of its socket, have no class of their own.
  if (!("code" in error) && !/^(Connection terminated|Client has|Client was|timeout|Query read)/.test(error.message))
    throw error;
  return {
    findings: [
      {
        severity: "error",
        code: "store_failed",
        what: `the connection to Postgres ended: ${error.message}`,
        remedy: "Read the log of Postgres, and run `hawser doctor` again",
      },
    ],
  };
}

function ofServer({ code = "", message }: pg.DatabaseError): Verdict {
  if (code === insufficientPrivilege) return { notChecked: `this login may not look: ${message}` };
  if (code === queryCanceled) {
    return {
      findings: [
        {
          severity: "error",
          code: "store_failed",
          what: `a statement that only reads took too long: ${message}`,
          remedy:
            "Find who holds the lock: SELECT pid, query FROM pg_stat_activity WHERE pid IN (SELECT unnest(pg_blocking_pids(pid)) FROM pg_stat_activity)",
        },
      ],
    };
  }
  const what = undefinedObjects.includes(code)
    ? `the schema hawser is not as this program expects it: ${message}`
    : `Postgres refused what was asked: ${message}`;
  return {
    findings: [
      { severity: "error", code: "store_failed", what, remedy: "Run `hawser init` as the owner of the schema hawser" },
    ],
  };
}
