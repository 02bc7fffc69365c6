/**
 * Which stream takes a subject, to tell why a publish was not answered.
 */
import { millis, type NatsConnection } from "@nats-io/transport-node";
import type { HawserError } from "../../errors/index.js";
import { type Attempt, isStreamMissing, natsFailure, noJetStream, noStream } from "../failure.js";
import { jetStreamSession } from "./jetstream-session.js";

/** What could be learned; nothing, if the user may not ask or the server does not answer. */
export interface Lookup {
  /** There is no JetStream, or no stream. */
  readonly missing?: HawserError;
  readonly stream?: string;
}

/** The same, with how long the stream knows the id of a message that it has stored (duplicate_window). */
export interface Inspection extends Lookup {
  readonly windowMs?: number;
}

/**
 * Looks for the stream of the attempt's subject. Never rejects.
 *
 * @param timeoutMs of the request
 */
export async function findStream(connection: NatsConnection, attempt: Attempt, timeoutMs: number): Promise<Lookup> {
  try {
    const { manager } = await jetStreamSession(connection, attempt.domain, timeoutMs);
    return { stream: await manager.streams.find(attempt.subject!) };
  } catch (error) {
    if (isStreamMissing(error)) return { missing: noStream(attempt, error) };
    const isOff = natsFailure(error, attempt).code === "jetstream_unavailable";
    return isOff ? { missing: noJetStream(attempt, error) } : {};
  }
}

/**
 * Looks for the stream and at it. Never rejects.
 *
 * @param timeoutMs of each of two requests
 */
export async function inspectStream(
  connection: NatsConnection,
  attempt: Attempt,
  timeoutMs: number,
): Promise<Inspection> {
  const found = await findStream(connection, attempt, timeoutMs);
  if (found.stream === undefined) return found;
  try {
    const { manager } = await jetStreamSession(connection, attempt.domain, timeoutMs);
    const { config } = await manager.streams.info(found.stream);
    return config.duplicate_window ? { ...found, windowMs: millis(config.duplicate_window) } : found;
  } catch {
    return found;
  }
}
