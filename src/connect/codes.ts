/**
 * Connect's codes: their names, their numbers in HTTP, and which of them stands for an error of Hawser.
 */
import { Code, ConnectError } from "@connectrpc/connect";
import { codeToHttpStatus } from "@connectrpc/connect/protocol-connect";
import { type ErrorCode, HawserError } from "../errors/index.js";

const codes = Object.values(Code).filter((code) => typeof code === "number");

/** The code's name on the wire, such as `not_found`. A number that is no code, as a handler may give one, means `unknown`. */
export function nameOfCode(code: Code): string {
  const name: unknown = Code[code];
  return (typeof name === "string" ? name : Code[Code.Unknown])
    .replace(/(?!^)[A-Z]/g, (letter) => `_${letter}`)
    .toLowerCase();
}

const codesByName = new Map(codes.map((code) => [nameOfCode(code), code]));

/** Undefined for what is no name of a code. */
export function codeOfName(name: string): Code | undefined {
  return codesByName.get(name);
}

/** The status by which a NATS service tells an error of this code (ADR-32). */
export function statusOfCode(code: Code): number {
  return codeToHttpStatus(code);
}

/** The code that a NATS service means by a status: of several with that status the first, and of a conflict the more general. */
export function codeOfStatus(status: number): Code {
  if (status === codeToHttpStatus(Code.Aborted)) return Code.Aborted;
  return codes.find((code) => codeToHttpStatus(code) === status) ?? Code.Unknown;
}

/**
 * What the errors of a call mean that no handler has thrown. Others mean `unavailable` where trying again may help, else
 * `internal`.
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

/** The error of a call as Connect has it. @param reason what the carrier has thrown */
export function connectErrorOf(reason: unknown): ConnectError {
  if (!(reason instanceof HawserError)) return ConnectError.from(reason, Code.Internal);
  const code = codesOfErrors[reason.code] ?? (reason.retryable ? Code.Unavailable : Code.Internal);
  return new ConnectError(reason.message, code, undefined, undefined, reason);
}
