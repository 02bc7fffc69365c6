/**
 * Options of transports and services that break a rule.
 */
import type { Violation } from "../../generated/ts/rules/violation.js";
import { RpcError, unknownOption } from "../errors/index.js";

/** @throws RpcError `invalid_argument` that names the first unknown option */
export function checkOptionNames(options: object, of: string, known: readonly string[]): void {
  const problem = unknownOption(options, of, known);
  if (problem !== undefined) throw new RpcError("invalid_argument", problem);
}

/** The error for a setting that breaks a rule of the spec. */
export function invalidSetting({ path, value, rule, remedy }: Violation): RpcError {
  return new RpcError("invalid_argument", `${path} ${value}: ${rule}. ${remedy}`);
}
