/** Errors for invalid options of transports and services. */
import type { Violation } from "../../generated/ts/rules/violation.js";
import { HawserError, unknownOption } from "../errors/index.js";

/** @throws HawserError `invalid_argument` for the first unknown option */
export function checkOptionNames(options: object, of: string, known: readonly string[]): void {
  const problem = unknownOption(options, of, known);
  if (problem !== undefined) throw new HawserError("invalid_argument", problem);
}

/** Error for a setting that violates a rule of the spec. */
export function invalidSetting({ path, value, rule, remedy }: Violation): HawserError {
  return new HawserError("invalid_argument", `${path} ${value}: ${rule}. ${remedy}`);
}
