/**
 * What a link says to those who ask it for a connection that it has not.
 */
import { HawserError, NatsError } from "../errors/index.js";

/** Whatever an attempt threw. */
export function asNatsError(error: unknown): NatsError {
  if (HawserError.is(error)) return error as NatsError;
  return new NatsError("internal", "connecting to NATS failed in a way that was not foreseen", { cause: error });
}

/** There is nothing to connect to. @param because why, if it is not that no server is defined */
export function notConfigured(because?: HawserError): NatsError {
  if (because === undefined) return new NatsError("nats_not_configured", "no NATS server is defined in this database");
  const { message, detail, entry } = because;
  return new NatsError("nats_not_configured", message, { detail, hint: because.hint ?? entry.remedy, cause: because });
}

/** There will be no connection any more. */
export function isStopped(): NatsError {
  const detail = "Hawser closes its connections.";
  return new NatsError("nats_unavailable", "there is no connection to the NATS server: it is being closed", { detail });
}

/** The same error for another caller, with the stack of its own call. */
export function again({ code, message, detail, hint, cause }: NatsError): NatsError {
  return new NatsError(code, message, { detail, hint, ...(cause === undefined ? {} : { cause }) });
}
