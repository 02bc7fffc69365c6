/**
 * Options of transports and services that break a rule.
 */
import type { Violation } from "../../generated/ts/rules/violation.js";
import { HawserError, unknownOption } from "../errors/index.js";

/** @throws HawserError `invalid_argument` that names the first unknown option */
export function checkOptionNames(options: object, of: string, known: readonly string[]): void {
  const problem = unknownOption(options, of, known);
  if (problem !== undefined) throw new HawserError("invalid_argument", problem);
}

/** The error for a setting that breaks a rule of the spec. */
export function invalidSetting({ path, value, rule, remedy }: Violation): HawserError {
  return new HawserError("invalid_argument", `${path} ${value}: ${rule}. ${remedy}`);
}
