/** Another message like one that is there. */
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { HawserError } from "../../foundation/errors/index.js";
import { enqueue } from "../../jobs-and-peers/queue/enqueue/index.js";
import type { Database } from "../../jobs-and-peers/store/index.js";
import type { JobMessage, WholeDeadLetter } from "../operate/index.js";

/** Headers that say which message it was. */
const ownHeaders: ReadonlySet<string> = new Set([
  protocolConstants.messageIdHeader,
  protocolConstants.messageKeyHeader,
  protocolConstants.messageOriginHeader,
  protocolConstants.messageExpiresHeader,
  protocolConstants.correlationIdHeader,
]);

/**
 * Enqueues a message with the topic, key and headers of a dead letter or of another message, as a message of the login's role. The other one
 * stays.
 *
 * @returns id of the new message
 * @throws HawserError `invalid_argument` for a dead letter of another origin than `queue`, and for what was enqueued
 * for a certain listener or group; as `enqueue`
 */
export async function enqueueLike(
  database: Database,
  like: WholeDeadLetter | JobMessage,
  payload: Uint8Array,
): Promise<bigint> {
  const { topic, headers } = like;
  const problem = problemOf(like);
  if (problem !== undefined)
    throw new HawserError(
      "invalid_argument",
      `${problem}; only what any listener of a topic may handle can be enqueued once more`,
    );
  const key = "key" in like ? like.key : headers.find(([name]) => name === protocolConstants.messageKeyHeader)?.[1];
  const caller = database.caller(`enqueue a message like ${like.id}`);
  const client = {
    query: (text: string, values?: readonly unknown[]) =>
      caller.query({ text, values: [...(values ?? [])], results: {} }),
  };
  return await enqueue(client, topic, payload, { key, headers: headers.filter(([name]) => !ownHeaders.has(name)) });
}

/** Reason why no message like this one can be enqueued. */
function problemOf(like: WholeDeadLetter | JobMessage): string | undefined {
  if (!("origin" in like))
    return like.isForAny ? undefined : `message ${like.id} is for a certain listener, a group, or all listeners`;
  const { id, origin, source, sentAs } = like;
  if (sentAs !== null || (origin === "queue" && !/[@#]/.test(source))) return undefined;
  return `dead letter ${id} was ${origin === "queue" ? "for a certain listener or group" : `of the origin ${origin}`}`;
}
