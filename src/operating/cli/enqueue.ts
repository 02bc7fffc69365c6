/** `hawser enqueue`: enqueues a message for a topic or a NATS subject, as `hawser.enqueue` does. */
import { limits } from "../../../generated/ts/rules/queue/queue.js";
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { queueConstants } from "../../../generated/ts/settings/queue.js";
import { HawserError } from "../../foundation/errors/index.js";
import type { SqlClient } from "../../foundation/sql-clients/index.js";
import { type EnqueueOptions, enqueue, type NatsSubject } from "../../jobs-and-peers/queue/enqueue/index.js";
import type { Database } from "../../jobs-and-peers/store/index.js";
import { withCommandDatabase } from "../operate/index.js";
import { type Arguments, defineCommand, flag, type Given, option, optional, required } from "./command-line.js";
import { headersOf, messageOf } from "./message-input.js";
import { databaseOption, databaseUrlOf, idOf, oneOf } from "./options.js";
import { printOutcomes } from "./output.js";
import { quantityOf, wholeNumber } from "./quantities.js";

/** Options of enqueued messages, and of those of a schedule. Spread them into a command's `args`. */
export const messageOptions = {
  core: flag("The destination is a subject of core NATS"),
  stream: flag("The destination is a NATS subject whose messages a stream stores"),
  domain: option("NAME", "With --stream: the JetStream domain. Default: the server option domain"),
  key: option("KEY", "Messages with the same destination and key are delivered in order"),
  priority: option("N", "For topics, -32768 to 32767: of those that wait, the highest is handled first. Default: 0"),
  all: flag("For topics: a copy for each group and each other listener"),
  header: option("NAME=VALUE", "A header; may be given several times", { multiple: true }),
} as const satisfies Arguments;

/** @throws HawserError `invalid_argument` for flags that do not fit together */
export function destinationOf(
  to: string,
  { core = false, stream = false, domain }: Given<typeof messageOptions>,
): string | NatsSubject {
  if (core && stream) throw new HawserError("invalid_argument", "--core and --stream: leave out one of the two");
  if (domain !== undefined && !stream) throw new HawserError("invalid_argument", "--domain goes with --stream");
  return core || stream ? { subject: to, stream, domain } : to;
}

/** @throws HawserError `invalid_argument` for a header or priority that cannot be parsed */
export function messageOptionsOf({ key, priority, all, header }: Given<typeof messageOptions>) {
  const range = { min: -32_768, max: 32_767 };
  return { key, all, priority: wholeNumber("--priority", priority, range), headers: headersOf(header) };
}

/** Client for the calls of users that write in a transaction. @param action as {@link Database.caller} */
export function sqlClientOf(database: Database, action: string): SqlClient {
  const caller = database.caller(action);
  return { query: (text, values) => caller.query({ text, values, results: {} }) };
}

export const command = defineCommand({
  details: "It ends when the message is committed: a peer handles it later, or `hawser serve` publishes it to NATS",
  args: {
    to: required("Topic, or with --core or --stream the NATS subject"),
    payload: optional("The message. Without it, or with -, standard input is the message, up to its end"),
    ...messageOptions,
    "message-id": option("ID", "Id of yours: the header message-id for handlers, Nats-Msg-Id in a stream"),
    delay: option(
      "TIME",
      "Deliver it after a time such as 10m. Until then `hawser jobs cancel`, or `hawser outbox cancel` for NATS, takes it back",
    ),
    after: option("ID", "For topics: a message that has to be handled first; may be given several times", {
      multiple: true,
    }),
    "after-dead": option(
      "hold|cancel",
      "With --after, if one of them becomes a dead letter: hold it, or cancel it. Default: hold",
    ),
    ttl: option("TIME", "For topics: it becomes a dead letter if no handler has started within a time such as 1h"),
    attempts: option("N", "For topics: calls of the handler until it is a dead letter. Default: as the handler says"),
    keep: option("TIME", "For topics: `hawser jobs show` tells what became of it for a time such as 1h after its end"),
    base64: flag("The message is given in base64"),
    ...databaseOption,
    json: flag("Print the id as one line of JSON"),
  },
  run: async (given) => {
    const { to, payload, base64 = false, json = false } = given;
    const days = { min: 0, max: queueConstants.maxLaterDays * 86_400_000 };
    const options: EnqueueOptions = {
      ...messageOptionsOf(given),
      messageId: given["message-id"],
      delayMs: quantityOf("duration", "--delay", given.delay, days),
      after: given.after?.map(idOf),
      afterDead: oneOf("after-dead", given["after-dead"], ["hold", "cancel"]),
      ttlMs: quantityOf("duration", "--ttl", given.ttl, { min: 1, max: protocolConstants.maxTtlMs }),
      attempts: wholeNumber("--attempts", given.attempts),
      keepMs: quantityOf("duration", "--keep", given.keep, limits.TopicSetting.keepMs),
    };
    const destination = destinationOf(to, given);
    const message = await messageOf(payload, base64);
    const id = await withCommandDatabase(
      databaseUrlOf(given),
      (database) => enqueue(sqlClientOf(database, "enqueue the message"), destination, message, options),
      { anyLogin: true },
    );
    await printOutcomes([{ id: String(id) }], json, () => `Enqueued message ${id}.`);
  },
  examples: [
    ["hawser enqueue reports '{\"month\": 5}'", "A message for a peer that handles the topic"],
    ["hawser enqueue mails --priority 10 --ttl 1h < mail.json", "A file, before others of the topic, within an hour"],
    [
      "hawser enqueue reports '{\"month\": 5}' --keep 1h",
      "For an hour after its end, `hawser jobs show` prints its result",
    ],
    ["hawser enqueue orders.remind 17 --stream --delay 1d", "For a JetStream stream, tomorrow"],
  ],
});
