/** Another message like a dead letter. */
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { HawserError } from "../../foundation/errors/index.js";
import { enqueue } from "../../jobs-and-peers/queue/enqueue/index.js";
import type { Database } from "../../jobs-and-peers/store/index.js";
import type { WholeDeadLetter } from "../operate/index.js";

/** Headers that say which message it was. */
const ownHeaders: ReadonlySet<string> = new Set([
  protocolConstants.messageIdHeader,
  protocolConstants.messageKeyHeader,
  protocolConstants.messageOriginHeader,
  protocolConstants.messageExpiresHeader,
  protocolConstants.correlationIdHeader,
]);

/**
 * Enqueues a message with the topic, key and headers of a dead letter, as a message of the login's role. The dead letter stays.
 *
 * @returns id of the new message
 * @throws HawserError `invalid_argument` for a dead letter of another origin than `queue` and `peer`, and for one that was enqueued
 * for a certain listener or group; as `enqueue`
 */
export async function enqueueLike(database: Database, letter: WholeDeadLetter, payload: Uint8Array): Promise<bigint> {
  const { id, origin, topic, source, headers } = letter;
  const isForAny = origin === "peer" || (origin === "queue" && !/[@#]/.test(source));
  if (!isForAny)
    throw new HawserError(
      "invalid_argument",
      `dead letter ${id} was ${origin === "queue" ? "for a certain listener or group" : `of the origin ${origin}`}; only what any listener of a topic may handle can be enqueued once more`,
    );
  const key = headers.find(([name]) => name === protocolConstants.messageKeyHeader)?.[1];
  const caller = database.caller(`enqueue a message like dead letter ${id}`);
  const client = {
    query: (text: string, values?: readonly unknown[]) =>
      caller.query({ text, values: [...(values ?? [])], results: {} }),
  };
  return await enqueue(client, topic, payload, { key, headers: headers.filter(([name]) => !ownHeaders.has(name)) });
}
