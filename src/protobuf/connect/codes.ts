/** Connect codes: their names, HTTP statuses, and the codes of Hawser's errors. */
import { Code, ConnectError } from "@connectrpc/connect";
import { codeToHttpStatus } from "@connectrpc/connect/protocol-connect";
import { type ErrorCode, HawserError } from "../../foundation/errors/index.js";

const codes = Object.values(Code).filter((code) => typeof code === "number");

/**
 * Wire name of a code, such as `not_found`. A number that is not a code, which a handler may use, becomes `unknown`.
 */
export function nameOfCode(code: Code): string {
  const name: unknown = Code[code];
  return (typeof name === "string" ? name : Code[Code.Unknown])
    .replace(/(?!^)[A-Z]/g, (letter) => `_${letter}`)
    .toLowerCase();
}

const codesByName = new Map(codes.map((code) => [nameOfCode(code), code]));

/** Code of a wire name; undefined for an unknown name. */
export function codeOfName(name: string): Code | undefined {
  return codesByName.get(name);
}

/** Status of an error with this code in a NATS micro service (ADR-32). */
export function statusOfCode(code: Code): number {
  return codeToHttpStatus(code);
}

/**
 * Code for the error status of a NATS micro service: the first code with that status. A conflict becomes `aborted`, the
 * more general of its two codes.
 */
export function codeOfStatus(status: number): Code {
  if (status === codeToHttpStatus(Code.Aborted)) return Code.Aborted;
  return codes.find((code) => codeToHttpStatus(code) === status) ?? Code.Unknown;
}

/**
 * Connect codes for errors of Hawser that no handler threw, by their code. A code that is not listed becomes
 * `unavailable` if a retry may help, and `internal` otherwise.
 */
export const codesOfErrors: Partial<Readonly<Record<ErrorCode, Code>>> = {
  aborted: Code.Canceled,
  busy: Code.ResourceExhausted,
  handler_failed: Code.Internal,
  internal_topic: Code.InvalidArgument,
  invalid_argument: Code.InvalidArgument,
  listener_lost: Code.Unavailable,
  nats_permission_denied: Code.PermissionDenied,
  nats_timeout: Code.DeadlineExceeded,
  nats_unavailable: Code.Unavailable,
  no_listener: Code.Unavailable,
  no_responders: Code.Unavailable,
  not_running: Code.Unavailable,
  not_supported: Code.Unimplemented,
  outcome_unknown: Code.Unavailable,
  payload_too_large: Code.ResourceExhausted,
  rejected: Code.FailedPrecondition,
  request_timeout: Code.DeadlineExceeded,
  self_topic: Code.FailedPrecondition,
  unreachable: Code.Unavailable,
  unreadable_headers: Code.Internal,
  unsubscribed: Code.Unavailable,
};

/** Converts an error of the transport to a `ConnectError`. @param reason error that the transport threw */
export function connectErrorOf(reason: unknown): ConnectError {
  if (!(reason instanceof HawserError)) return ConnectError.from(reason, Code.Internal);
  const code = codesOfErrors[reason.code] ?? (reason.retryable ? Code.Unavailable : Code.Internal);
  return new ConnectError(reason.message, code, undefined, undefined, reason);
}
