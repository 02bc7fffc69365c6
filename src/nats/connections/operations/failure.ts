/**
 * Conversion of errors of nats.js and the JetStream API to errors of Hawser.
 *
 * Errors of nats.js have no codes. They are distinguished by their class and that of their causes, and for a lost
 * connection by their message.
 */
import { JetStreamApiCodes, JetStreamApiError, type PubAck } from "@nats-io/jetstream";
import { JetStreamStatusError, jserrors } from "@nats-io/jetstream/internal";
import { errors, type Msg } from "@nats-io/transport-node";
import { errorMessageOf, HawserError } from "../../../foundation/errors/index.js";

/** Description of an operation, for the error that it may end with. */
export interface OperationDescription {
  /** Name of the operation in error messages, such as `publish to "orders.new"`. Never contains a payload. */
  readonly name: string;
  /** Subject of a request, for errors about missing responders. */
  readonly subject?: string;
  /** JetStream domain, if one was named. */
  readonly domain?: string | undefined;
  /** Number of replicas of the bucket or store that the operation may create. */
  readonly replicas?: number | undefined;
  /** True if the operation changes something, so that a lost answer leaves its outcome unknown. */
  readonly changes: boolean;
  /** Time limit of the operation, in milliseconds. */
  readonly timeoutMs: number;
}

/** Codes of the JetStream API for which nats.js has no name. */
const apiCode = {
  clusterNotLeader: 10009,
  clusterNotAvailable: 10008,
  insufficientResources: 10023,
  memoryExceeded: 10028,
  messageTooLarge: 10054,
  notEnabled: 10076,
  noPeersForPlacement: 10005,
  storageExceeded: 10047,
  storeFailed: 10077,
  replicasNotSupported: 10074,
} as const;

const notEnabled: ReadonlySet<number> = new Set([apiCode.notEnabled, JetStreamApiCodes.JetStreamNotEnabledForAccount]);

/** Codes for a cluster without a leader, and for a request that reached a server that is no longer the leader. */
const leaderless: ReadonlySet<number> = new Set([apiCode.clusterNotLeader, apiCode.clusterNotAvailable]);

/** Codes for a full stream, account or server. A full stream reports `storeFailed`; the description names the limit. */
const noRoom: ReadonlySet<number> = new Set([
  apiCode.insufficientResources,
  apiCode.memoryExceeded,
  apiCode.storageExceeded,
  apiCode.storeFailed,
]);

/** Codes for a stream with more replicas than there are servers. */
const tooManyReplicas: ReadonlySet<number> = new Set([apiCode.noPeersForPlacement, apiCode.replicasNotSupported]);

/** Messages of nats.js for a request whose connection ended before the answer. */
const lostTexts: ReadonlySet<string> = new Set(["connection closed", "connection disconnected"]);

/** Converts an error that `attempt` threw. An error of Hawser is returned unchanged. */
export function natsFailure(cause: unknown, attempt: OperationDescription): HawserError {
  if (cause instanceof HawserError) return cause;
  const { name } = attempt;
  for (const error of causesOf(cause)) {
    if (error instanceof errors.PermissionViolationError) return permissionDenied(error, attempt);
    if (error instanceof errors.TimeoutError) return timedOut(attempt, cause);
    if (error instanceof jserrors.JetStreamNotEnabled) return noJetStream(attempt, cause);
    if (error instanceof errors.NoRespondersError) return noResponders(attempt, cause);
    if (error instanceof JetStreamApiError) return apiFailure(error, attempt);
    if (error instanceof JetStreamStatusError) {
      const detail = `status ${error.code}`;
      return new HawserError("nats_failed", `NATS refused the ${name}: ${error.message}.`, { cause, detail });
    }
    if (error instanceof errors.ClosedConnectionError || error instanceof errors.DrainingConnectionError) {
      return connectionLost(attempt, cause);
    }
    if (lostTexts.has(error.message)) return connectionLost(attempt, cause);
    if (error instanceof errors.InvalidSubjectError || error instanceof errors.InvalidArgumentError) {
      return new HawserError("invalid_argument", `The ${name} was refused before it was sent: ${error.message}.`, {
        cause,
      });
    }
  }
  const words = errorMessageOf(cause);
  if (cause instanceof TypeError || cause instanceof RangeError) {
    return new HawserError("internal", `The ${name} failed with an internal error: ${words}.`, { cause });
  }
  return new HawserError("nats_failed", `The ${name} failed: ${words}.`, { cause });
}

/** Error of an attempt without a connection; nothing was sent. */
export function notConnected({ name }: OperationDescription, cause?: unknown): HawserError {
  return new HawserError("nats_unavailable", `There is no connection to NATS: the ${name} was not sent.`, { cause });
}

/** Error of an attempt whose connection closed after the request may have been sent. */
export function connectionLost(attempt: OperationDescription, cause?: unknown): HawserError {
  const { name } = attempt;
  if (!attempt.changes) {
    return new HawserError("nats_unavailable", `The connection to NATS ended during the ${name}.`, {
      cause,
      remedy: "Try again; it would not have changed anything.",
    });
  }
  return new HawserError(
    "outcome_unknown",
    `The connection to NATS ended during the ${name}; it may or may not have been carried out.`,
    { cause, outcome: "unknown" },
  );
}

/** Error of an attempt without an answer within its time limit. */
export function timedOut(attempt: OperationDescription, cause?: unknown): HawserError {
  const { name, timeoutMs } = attempt;
  const message = `NATS did not answer the ${name} within ${timeoutMs} ms`;
  if (!attempt.changes) return new HawserError("nats_timeout", `${message}.`, { cause });
  return new HawserError("nats_timeout", `${message}; it may or may not have been carried out.`, {
    cause,
    outcome: "unknown",
  });
}

/** Error of an attempt that needs JetStream, if JetStream does not answer. */
function noJetStream(attempt: OperationDescription, cause?: unknown): HawserError {
  const { name, domain } = attempt;
  const where =
    domain === undefined ? "The NATS server has no JetStream" : `The JetStream domain "${domain}" does not answer`;
  return new HawserError("jetstream_unavailable", `${where}, which the ${name} needs.`, { cause });
}

/** Error of a publish whose subject belongs to no stream, although JetStream answers. */
export function noStream({ subject, domain }: OperationDescription, cause?: unknown): HawserError {
  const where = domain === undefined ? "" : ` in domain "${domain}"`;
  return new HawserError("no_stream", `No stream${where} stores the subject "${subject}", so the publish failed.`, {
    cause,
  });
}

/** Error of a publish that was acknowledged by another domain than the named one. */
export function wrongDomain({ name, domain }: OperationDescription, ack: PubAck): HawserError {
  const at = ack.domain === undefined ? "a server without a domain" : `domain "${ack.domain}"`;
  return new HawserError("no_stream", `No stream in domain "${domain}" acknowledged the ${name}.`, {
    detail: `Stream "${ack.stream}" of ${at} has stored the message as number ${ack.seq}.`,
    outcome: "unknown",
  });
}

/** Error of a message above the server's limit, which counts headers and payload. */
export function tooLarge({ name }: OperationDescription, bytes: number, limit: number): HawserError {
  return new HawserError(
    "payload_too_large",
    `The ${name} has ${bytes} bytes with its headers; the NATS server takes at most ${limit} (max_payload).`,
  );
}

function permissionDenied(
  error: InstanceType<typeof errors.PermissionViolationError>,
  { name }: OperationDescription,
): HawserError {
  return new HawserError("nats_permission_denied", `The NATS server does not permit the ${name}.`, {
    cause: error,
    detail: error.message,
  });
}

function noResponders({ name, subject }: OperationDescription, cause: unknown): HawserError {
  return new HawserError("no_responders", `Nobody answers the ${name}.`, {
    cause,
    ...(subject === undefined ? {} : { detail: `No subscriber of "${subject}" is connected.` }),
  });
}

function apiFailure(error: JetStreamApiError, attempt: OperationDescription): HawserError {
  const { name, replicas = 1 } = attempt;
  const detail = `err_code ${error.code}, status ${error.status}`;
  if (replicas > 1 && tooManyReplicas.has(error.code)) {
    const words = `The ${name} needs to create it with replicas '${replicas}', which NATS refused: ${error.message}.`;
    return new HawserError("nats_failed", words, {
      cause: error,
      detail,
      remedy:
        "Set option replicas of the NATS server to at most the number of JetStream servers in its cluster; without a cluster, to 1.",
    });
  }
  if (notEnabled.has(error.code)) return noJetStream(attempt, error);
  if (leaderless.has(error.code)) {
    const words = `JetStream, which the ${name} needs, is temporarily unavailable: ${error.message}.`;
    return new HawserError("jetstream_unavailable", words, {
      cause: error,
      detail,
      remedy: "Try again: the servers of the cluster are electing a leader, which needs a majority.",
    });
  }
  if (error.code === apiCode.messageTooLarge) {
    return new HawserError("payload_too_large", `The ${name} is larger than its stream or bucket allows.`, {
      cause: error,
      detail: `${error.message} (${detail})`,
      remedy: "Send less, or raise the maximum message size of the stream or bucket.",
    });
  }
  return new HawserError("nats_failed", `NATS refused the ${name}: ${error.message}.`, { cause: error, detail });
}

/** Error and its causes, at most eight in all. */
function* causesOf(error: unknown): Generator<Error> {
  for (let depth = 0; depth < 8 && error instanceof Error; depth++, error = error.cause) yield error;
}

/** Parses an answer in JSON. @param by what should have answered @throws HawserError nats_failed, if it did not */
export function readAnswer<T extends object>({ name }: OperationDescription, answer: Msg, by: string): Partial<T> {
  let read: Partial<T> | null;
  try {
    read = answer.json();
  } catch (cause) {
    throw strangeAnswer(name, by, cause);
  }
  if (typeof read !== "object" || read === null) throw strangeAnswer(name, by);
  return read;
}

/** Error of an answer that is not from JetStream. @param by what should have answered */
export function strangeAnswer(name: string, by: string, cause?: unknown): HawserError {
  return new HawserError("nats_failed", `The ${name} was answered by something other than ${by}.`, { cause });
}

/** True if JetStream reported that no such stream exists, or that no stream has the subject. */
export function isStreamMissing(error: unknown): boolean {
  return error instanceof JetStreamApiError && error.code === JetStreamApiCodes.StreamNotFound;
}

/** True if JetStream reported that no such consumer exists. */
export function isConsumerMissing(error: unknown): boolean {
  return error instanceof JetStreamApiError && error.code === JetStreamApiCodes.ConsumerNotFound;
}

/** True if a stream, its account or its server is full. This may change, so a repetition can succeed. */
export function isStreamFull(error: unknown): boolean {
  for (const cause of causesOf(error)) if (cause instanceof JetStreamApiError) return noRoom.has(cause.code);
  return false;
}

/** True if JetStream refused a publish because the last message of the subject is not the expected one. */
export function isWrongLastRevision(error: unknown): error is JetStreamApiError {
  const { StreamWrongLastSequence, StreamWrongLastSequenceUnknown } = JetStreamApiCodes;
  const codes: readonly number[] = [StreamWrongLastSequence, StreamWrongLastSequenceUnknown];
  return error instanceof JetStreamApiError && codes.includes(error.code);
}

/** True if the user of the connection lacks a permission. */
export function isPermissionDenied(error: unknown): boolean {
  for (const each of causesOf(error)) if (each instanceof errors.PermissionViolationError) return true;
  return false;
}
