/**
 * Errors: one class with a stable code, its subclasses for handlers, and look-ups in the spec's error table. Imports only
 * `generated/`, so that every layer can use it.
 */
export { errorByWireCode as errorOfWireCode, errorTable } from "../../../generated/ts/errors/errors.js";
export {
  asHawserError,
  type ErrorCode,
  exitStatusOf,
  HawserError,
  type HawserErrorOptions,
  Reject,
  RetryAfter,
  type RetryAfterOptions,
} from "./hawser-error.js";
export { ago, errorMessageOf, plural, quoted, shellWord, shortened, withoutPasswords } from "./message-text.js";
export { checkedSettings, checkOptionNames, invalidArgument, namesOf, refuse, unknownOption } from "./option-checks.js";
export { suggestOption } from "./suggestion.js";
