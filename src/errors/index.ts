/**
 * Errors: one class with a stable code, the one that handlers throw, and the look-ups in the spec's error table.
 * Imports nothing but `generated/`, so that every layer can use it.
 */
export { errorByWireCode as errorOfWireCode, errorTable } from "../../generated/ts/errors/errors.js";
export { type ErrorCode, exitStatusOf, HawserError, type HawserErrorOptions, Reject } from "./hawser-error.js";
export { ago, shortened, withoutPasswords } from "./message-text.js";
export { namesOf, unknownOption } from "./unknown-option.js";
