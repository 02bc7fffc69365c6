/**
 * A worker of the campaign of the queue, in a process of its own, which handles all topics as the jobs say, notes effects of
 * transactional handlers in `done`, and writes a journal. Arguments: its name, the file of its journal. The database is that of
 * HAWSER_DATABASE_URL.
 */
import { openSync, writeSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import type { PoolClient } from "pg";
import {
  enqueue,
  type Message,
  Peer,
  Reject,
  RetryAfter,
  type TransactionalMessage,
} from "../../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../../support/eventually.js";
import {
  type CampaignJob,
  now,
  plainTopics,
  transactionalTopics,
  type WorkerLine,
  workerAttempts,
  workerConcurrency,
  workerTakeoverMs,
} from "../support/queue-campaign-protocol.js";

const [name, journalFile] = process.argv.slice(2) as [string, string];
const journal = openSync(journalFile, "a");
const write = (line: WorkerLine): void => void writeSync(journal, `${JSON.stringify(line)}\n`);

const peer = new Peer({
  name,
  stopOnSignals: true,
  stopTimeoutMs: 1_000,
  nameWaitMs: 60_000,
  concurrency: workerConcurrency,
  defaults: {
    durable: true,
    takeoverMs: workerTakeoverMs,
    retry: { attempts: workerAttempts, delayMs: 20, maxDelayMs: 200 },
  },
});

function jobOf(message: Message): CampaignJob {
  if (message.topic === "scheduled") return { id: message.headers.get("schedule-time")! };
  return message.json() as CampaignJob;
}

let calls = 0;

/** Notes begin and end of a call in the journal. */
async function noted<T>(messages: readonly Message[], call: () => Promise<T>): Promise<T> {
  const begun = messages.map((message) => {
    const { id, alone } = jobOf(message);
    const nth = ++calls;
    const { topic, attempt } = message;
    write({ kind: "begun", at: now(), call: nth, topic, id, number: message.id!, attempt, alone });
    return nth;
  });
  let isDone = false;
  try {
    const result = await call();
    isDone = true;
    return result;
  } finally {
    for (const nth of begun) write({ kind: "ended", at: now(), call: nth, isDone });
  }
}

async function act(message: Message): Promise<string> {
  const { id, workMs = 0, fails = 0, notBefore = 0, rejects, kills, endless } = jobOf(message);
  if (kills === true) {
    write({ kind: "suicide", at: now() });
    process.kill(process.pid, "SIGKILL");
    await delay(60_000);
  }
  if (rejects === true) throw new Reject("as its payload says");
  if (Date.now() < notBefore) throw new RetryAfter(new Date(notBefore));
  if (message.attempt <= fails) throw new Error(`attempt ${message.attempt} of ${fails} that fail`);
  message.progress({ of: id });
  await delay(endless === true ? 600_000 : workMs, undefined, { signal: message.signal });
  return id;
}

async function effect(client: PoolClient, message: Message): Promise<void> {
  let consumer = message.topic;
  if (consumer === "news") {
    const { rows } = await client.query("SELECT recipient FROM copies WHERE id = $1", [message.id]);
    consumer = `news ${rows[0].recipient}`;
  }
  let { id } = jobOf(message);
  if (message.topic === "unique") {
    // What is replaced has another payload.
    id = `#${message.id}`;
  }
  await client.query("INSERT INTO done (consumer, id, note) VALUES ($1, $2, $3)", [consumer, id, name]);
}

async function handleInTransaction(message: TransactionalMessage): Promise<string> {
  return await noted([message], async () => {
    const { client } = message;
    const { further } = jobOf(message);
    await effect(client, message);
    if (further !== undefined) {
      await client.query("INSERT INTO sent (id, consumers, kind) VALUES ($1, '{work}', 'further')", [further]);
      await enqueue(client, "work", { id: further } satisfies CampaignJob);
    }
    return await act(message);
  });
}

for (const topic of plainTopics) await peer.handle(topic, (message) => noted([message], () => act(message)));
for (const topic of transactionalTopics) await peer.handle(topic, { transactional: true }, handleInTransaction);
const together = { transactional: true, maxMessages: 20, waitMs: 20 } as const;
await peer.handleBatch("readings", together, async (messages, { client, fail, signal }) => {
  await noted(messages, async () => {
    await delay(20, undefined, { signal });
    for (const message of messages) {
      if (message.attempt <= (jobOf(message).fails ?? 0)) fail(message, new Error("as its payload says"));
      else await effect(client, message);
    }
  });
});
await eventually("Postgres takes the peer", () =>
  peer.start().then(
    () => true,
    () => false,
  ),
);
write({ kind: "up", at: now() });
process.stdout.write("running\n");
let wasReady: boolean | undefined;
const look = setInterval(() => {
  const { ready } = peer.health();
  if (ready !== wasReady) write({ kind: "health", at: now(), ready });
  wasReady = ready;
}, 25);
await peer.closed;
clearInterval(look);
write({ kind: "down", at: now() });
