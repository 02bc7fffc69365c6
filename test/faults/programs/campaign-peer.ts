/**
 * A peer of the campaign, in a process of its own: its transactional handlers note in `done` what they have handled, fail as often
 * as the message says, ask and reply. Arguments: name, and its part: the group `red` or `blue`, `solo`, or `sink`. The database is
 * that of HAWSER_DATABASE_URL.
 */
import { randomUUID } from "node:crypto";
import { Peer, type TransactionalMessage } from "../../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../../support/eventually.js";
import {
  type CampaignPayload,
  campaignRetry,
  consumersOf,
  heedClock,
  nameLostStatus,
  shortenConstants,
} from "../support/campaign-protocol.js";

const [name, part] = process.argv.slice(2) as [string, string];
shortenConstants();
heedClock();
const isMember = part === "red" || part === "blue";
const peer = new Peer({
  name,
  topic: part === "solo" ? "answers" : name,
  stopOnSignals: true,
  nameWaitMs: 60_000,
  concurrency: 12,
  defaults: {
    durable: true,
    retry: campaignRetry,
    ...(isMember ? { group: part, takeoverMs: 3_000 } : {}),
    ...(part === "solo" ? { takeoverMs: 3_000 } : {}),
  },
});
peer.on("status", ({ kind, message }) => {
  if (kind !== "name_lost") return;
  console.error(message);
  process.exit(nameLostStatus);
});

/** What the message is handled for. Of a copy of a message for all, it is the listener or group that it was made for. */
async function consumerOf({ topic, id, client }: TransactionalMessage): Promise<string> {
  if (topic !== "news") return topic;
  const { rows } = await client.query("SELECT recipient FROM copies WHERE id = $1", [id!.split("/").at(-1)]);
  return `news ${rows[0].recipient}`;
}

async function handle(message: TransactionalMessage): Promise<void> {
  const { client, headers } = message;
  const occurrence = headers.get("schedule-name");
  const { id, fails, asks, replies } = message.json() as CampaignPayload;
  if (occurrence !== undefined) {
    const values = [occurrence, headers.get("schedule-time"), message.topic];
    await client.query("INSERT INTO ran (name, time, topic) VALUES ($1, $2, $3)", values);
    return;
  }
  await note(message, id);
  if (message.attempt <= fails) throw new Error(`attempt ${message.attempt} of ${fails} that fail`);
  if (asks) {
    const question: CampaignPayload = { id: randomUUID(), fails: fails % 2, replies: true };
    const values = [question.id, consumersOf.ask];
    await client.query("INSERT INTO sent (id, kind, consumers) VALUES ($1, 'ask', $2)", values);
    await peer.enqueue(client, "jobs", JSON.stringify(question));
  }
  if (replies) await message.reply(JSON.stringify({ id, fails: 0 } satisfies CampaignPayload));
}

async function note(message: TransactionalMessage, id: string): Promise<void> {
  const values = [await consumerOf(message), id, `${name} ${message.id} attempt ${message.attempt}`];
  await message.client.query("INSERT INTO done (consumer, id, note) VALUES ($1, $2, $3)", values);
}

const topics = isMember ? ["jobs", "news"] : part === "solo" ? ["work", "answers", "news"] : ["direct"];
for (const topic of topics) await peer.handle(topic, { transactional: true }, handle);
if (isMember) {
  const together = { transactional: true, maxMessages: 20, waitMs: 20 } as const;
  await peer.handleBatch("readings", together, async (messages, { fail }) => {
    for (const message of messages) {
      const { id, fails } = message.json() as CampaignPayload;
      if (message.attempt <= fails) fail(message, new Error(`attempt ${message.attempt} of ${fails} that fail`));
      else await note(message, id);
    }
  });
}
await eventually("Postgres takes the peer", () =>
  peer.start().then(
    () => true,
    // Postgres is away.
    () => false,
  ),
);
process.stdout.write("running\n");
