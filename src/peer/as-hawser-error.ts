import { HawserError, PeerError } from "../errors/index.js";

/** The error itself if it is one of ours, else `internal` with it as the cause. */
export function asHawserError(error: unknown): HawserError {
  if (HawserError.is(error)) return error;
  return new PeerError("internal", error instanceof Error ? error.message : String(error), { cause: error });
}
