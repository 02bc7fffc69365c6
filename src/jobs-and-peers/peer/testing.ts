/** Messages for unit tests of handlers, of the class that handlers get. No peer and no database is needed. */
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { checkOptionNames, HawserError, invalidArgument, namesOf } from "../../foundation/errors/index.js";
import { Cancellation } from "../../foundation/runtime/index.js";
import type { SqlClient } from "../../foundation/sql-clients/index.js";
import { progressJson } from "../handlers/kept-result.js";
import { MessageView, type Reply, type TransactionalMessage } from "../handlers/message.js";
import {
  type AnyJson,
  checkContent,
  checkedId,
  checkHeaders,
  checkMarks,
  checkTopic,
  type HeadersInput,
  headerPairsOf,
  type Payload,
} from "../queue/enqueue/index.js";
import type { Transaction } from "../store/index.js";
import { QueuedMessage } from "../store/index.js";

/** Properties of a {@link testMessage}. */
export interface TestMessageOptions {
  /** Topic of the message. Default: `test`. */
  readonly topic?: string | undefined;
  /** Object of header names with a value or an array of values, or an iterable of `[name, value]` pairs. */
  readonly headers?: HeadersInput | undefined;
  /** Ordering key. Default: none. */
  readonly key?: string | undefined;
  /** `message.id`: an id as `enqueue` returns it, or its digits. Default: 1. */
  readonly id?: bigint | string | undefined;
  /** `messageId` that was given to `enqueue`, for the header `message-id`. Default: none. */
  readonly messageId?: string | undefined;
  /** Number of the attempt, from 1. Default: 1. */
  readonly attempt?: number | undefined;
  /** Client of the test, as `message.client`. Without one, `message.client` throws `not_supported`. */
  readonly client?: SqlClient | undefined;
  /** Signal that aborts `message.signal`. Default: none does. */
  readonly signal?: AbortSignal | undefined;
  /** Signal that aborts `message.stopping`, as the begin of a stop does. Default: none does. */
  readonly stopping?: AbortSignal | undefined;
  /** Peer that enqueued the message, and its topic. Default: no peer did, and a reply is refused. */
  readonly sender?: { readonly name: string; readonly topic: string } | undefined;
  /** Called with each value of `message.progress`, which throws `invalid_argument` for a value of more than 1,024 bytes as JSON. */
  readonly onProgress?: ((value: unknown) => void) | undefined;
  /** Called with each payload of `message.reply`. Needs `sender`. */
  readonly onReply?: ((payload: Payload) => void) | undefined;
}

const known = namesOf<TestMessageOptions>({
  ...{ topic: true, headers: true, key: true, id: true, messageId: true, attempt: true, client: true, signal: true },
  ...{ stopping: true, sender: true, onProgress: true, onReply: true },
});

/**
 * Makes a message as a handler gets it, to call the handler with, without a peer and a database.
 *
 * @param payload a string, bytes, or an object, which is encoded as JSON; at most 64 MiB
 * @throws HawserError `invalid_argument`
 */
export function testMessage<Value = AnyJson>(
  payload: Payload,
  options: TestMessageOptions = {},
): TransactionalMessage<Value> {
  checkOptionNames(options, "a test message", known);
  const {
    topic = "test",
    key,
    id = 1n,
    messageId,
    attempt = 1,
    client,
    signal,
    stopping,
    sender,
    onProgress,
    onReply,
  } = options;
  checkTopic(topic);
  checkMarks({ key, messageId });
  if (!Number.isSafeInteger(attempt) || attempt < 1)
    throw invalidArgument(`attempt ${String(attempt)}: must be an integer from 1`);
  const content = checkContent(payload, options.headers);
  const { messageOriginHeader, messageKeyHeader, messageIdHeader } = protocolConstants;
  // In the order of an enqueued message.
  const headers = checkHeaders([
    ...(sender === undefined ? [] : [[messageOriginHeader, `${sender.name}:${sender.topic}:`] as const]),
    ...(key === undefined ? [] : [[messageKeyHeader, key] as const]),
    ...headerPairsOf(content.headers),
    ...(messageId === undefined ? [] : [[messageIdHeader, messageId] as const]),
  ]);
  const place = { topic, recipient: "", role: "", rank: 1n };
  const started = { attempts: attempt - 1, isSuspect: false, wasRunning: false, isUnique: false, isKept: true };
  const row = { ...place, ...started, key: key ?? null };
  const message = new QueuedMessage(
    row,
    checkedId("id", id),
    { payload: content.bytes, headers: headers ?? [], fault: undefined },
    undefined,
  );
  message.kept = {
    ...{ json: undefined, durationMs: 0, returned: () => undefined },
    progress: (value) => {
      progressJson(value);
      onProgress?.(value);
    },
  };
  const cancellation = new Cancellation();
  onAbort(signal, (reason) => cancellation.abort(reason));
  onAbort(stopping, (reason) => cancellation.stop(reason));
  const reply: Reply = async (to, answer) => {
    if (to === undefined) {
      throw new HawserError(
        "no_listener",
        "no peer sent or enqueued the message, so a reply has no recipient; give testMessage a sender",
        { retryable: false },
      );
    }
    onReply?.(answer);
    return { outcome: "delivered", peer: to.name };
  };
  const view = new MessageView(
    ...([reply, message, topic, attempt] as const),
    client as Transaction | undefined,
    cancellation,
  );
  if (client === undefined) Object.defineProperty(view, "client", { get: refuseClient });
  return view as TransactionalMessage<Value>;
}

/** Calls back with the reason when the signal is aborted, or at once. */
function onAbort(signal: AbortSignal | undefined, aborted: (reason: unknown) => void): void {
  if (signal?.aborted === true) aborted(signal.reason);
  else signal?.addEventListener("abort", () => aborted(signal.reason), { once: true });
}

function refuseClient(): never {
  throw new HawserError(
    "not_supported",
    "the test message has no client; give one to testMessage: testMessage(payload, { client })",
  );
}
