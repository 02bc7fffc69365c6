import { errorTable } from "../../generated/ts/errors/errors.js";
import { HawserError } from "./hawser-error.js";

/**
 * The exit status of a command that ends with `error`: that of its code, or that of `internal` for anything which is
 * not ours, since then we failed to say what went wrong.
 */
export function exitStatusOf(error: unknown): number {
  return HawserError.is(error) ? error.entry.exitStatus : errorTable.internal.exitStatus;
}
