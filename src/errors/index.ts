/**
 * Errors: one base class with a stable code, one leaf for each layer, and the look-ups in the spec's error table.
 * Imports nothing but `generated/`, so that every layer can use it.
 */
export { type ErrorEntry, errorByWireCode as errorOfWireCode, errorTable } from "../../generated/ts/errors/errors.js";
export {
  type ErrorCode,
  type ErrorOutcome,
  exitStatusOf,
  HawserError,
  type HawserErrorOptions,
} from "./hawser-error.js";
export {
  BridgeError,
  CliError,
  DevError,
  GatewayError,
  NatsError,
  PeerError,
  PostgresError,
  Reject,
  RpcError,
  StoreError,
  TransportError,
  TypedError,
  WireError,
} from "./leaves.js";
export { ago, shortened, withoutPasswords } from "./message-text.js";
export { namesOf, unknownOption } from "./unknown-option.js";
