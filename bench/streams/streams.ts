/**
 * The suite `streams`: from a JetStream stream into a table.
 */
import { measureSideBySide, warmUpCost } from "../measure.js";
import { formatValue } from "../report.js";
import type { ServeRequests } from "../serve-process.js";
import { type BenchServers, installFunctions, withServers } from "../servers.js";
import type { Suite, SuiteContext, SuiteOutcome, SuitePage } from "../suite.js";
import { Worker } from "../worker.js";
import { takingByWork } from "./growth.js";
import type { StreamRequests } from "./process.js";

const payloadBytes = 100;
const full = { messages: 100_000, rounds: 5 };
const quick = { messages: 1_000, rounds: 1 };
const quickRunSeconds = 0.02;
const firstAmount = 100;

/** Seconds reserved at the end for the measurements of growth. */
const growthSeconds = 150;

const name = "stream to rows";
const ours = "Hawser";
const consumer = "consumer";
const inBatches = "stream to rows, by batches";
const bulkConsumer = "bulk consumer";

const page: SuitePage = {
  title: "Streams into SQL",
  text: `A stream with file storage has ${formatValue(full.messages)} messages. A new subscription takes all of them, with a function that
inserts one row for each. The time is from the call of \`nats_subscribe_stream\` until all rows and the position are committed.
Each run checks that there are as many rows as messages.

- \`${consumer}\` is a durable consumer of nats.js: for each message a prepared \`INSERT\` in a transaction of its own, then its
  acknowledgement, one message after another. After a failure it inserts rows again.
- **${inBatches}** has a function of \`payloads bytea[]\`, which inserts a whole batch. \`${bulkConsumer}\` is a pull consumer written
  by hand for the same: a bulk \`INSERT\` and its position in one transaction, for as many messages as a batch has.

**time by …** is how the way of a message into its row grows, each size beside the smallest one: with the payload; with the keys that
\`key_token\` finds in the subjects, which the messages have in turn; with the length of the stream; and with subscriptions
of one stream, each of which takes all of it.

**What is in the way.** \`serve\` uses 66 % of a processor, Postgres 57 % and nats-server 37 %, of two. The beginning (to take
the subscription, look at the stream, make a consumer) takes 80 ms, a tenth of the time of 100,000 messages: a stream of
a million is taken at 115,000/s. Batches of 5,000, and half the objects for each message, took it there from 50,000/s.
With \`key_token\` and many keys, batches are smaller, and all of them end in the row of the position, one after another.`,
  charts: [{ title: "Stream to rows", results: [name, inBatches], scale: "logarithmic" }],
};

/** The suite. */
export const streams: Suite = {
  name: "streams",
  summary: "messages/s from a stream into rows, beside a consumer with one transaction for each message",
  seconds: 240,
  page,
  targets: [
    { name, payloadBytes, atLeast: 100_000 },
    { name: inBatches, payloadBytes, baseline: bulkConsumer, atLeast: 1 },
  ],
  run: (context) => withServers(context, (servers) => measure(context, servers)),
};

async function measure(context: SuiteContext, servers: BenchServers): Promise<Omit<SuiteOutcome, "servers">> {
  const { say, source, signal, quick: isQuick, endBy } = context;
  const { messages, rounds: fullRounds } = isQuick ? quick : full;
  const rounds = context.rounds(fullRounds);
  say("Preparing the database, and filling the stream");
  await installFunctions(servers, source);
  const options = { source, signal };
  const taking = Worker.start<StreamRequests>("taking", new URL("./process.ts", import.meta.url), options);
  const serve = Worker.start<ServeRequests>("serve", new URL("../serve-process.ts", import.meta.url), options);
  try {
    await taking.request("open", servers);
    await taking.request("fill", { messages, payloadBytes });
    await serve.request("open", { databaseUrl: servers.databaseUrl });
    say("Measuring");
    const seconds = (endBy - performance.now()) / 1000 - growthSeconds;
    const rates = await measureSideBySide(
      [
        {
          name: ours,
          // Always all of them: what counts is how a stream of that size goes.
          run: async (amount) => ((await taking.request("subscribe", { messages })) * amount) / messages,
        },
        {
          name: consumer,
          run: async (amount) => {
            const taken = Math.min(amount, messages);
            return ((await taking.request("consume", taken)) * amount) / taken;
          },
        },
        {
          name: inBatches,
          run: async (amount) =>
            ((await taking.request("subscribe", { messages, inBatches: true })) * amount) / messages,
        },
        {
          name: bulkConsumer,
          run: async (amount) => ((await taking.request("consumeInBulk", messages)) * amount) / messages,
        },
      ],
      { rounds, secondsPerRun: isQuick ? quickRunSeconds : seconds / 2 / (rounds + warmUpCost), firstAmount, signal },
    );
    const measured = { payloadBytes, unit: "messages/s", better: "higher" as const };
    const pair = (of: string, own: string, baseline: string) => ({
      ...{ ...measured, name: of, samples: rates.get(own)! },
      baselines: [{ name: baseline, samples: rates.get(baseline)! }],
    });
    return {
      results: [
        pair(name, ours, consumer),
        pair(inBatches, inBatches, bulkConsumer),
        ...(await takingByWork(context, taking, payloadBytes)),
      ],
      notes: [`the stream has ${formatValue(messages)} messages`],
    };
  } finally {
    await Promise.all([taking.stop(), serve.stop()]);
  }
}
