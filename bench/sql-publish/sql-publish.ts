/**
 * The suite `sql-publish`: what it costs to publish from SQL.
 */
import { connect } from "@nats-io/transport-node";
import pg from "pg";
import { install } from "../../src/store/index.js";
import { BenchFailure } from "../bench-failure.js";
import { type BenchServers, withServers } from "../bench-servers.js";
import { measureSideBySide, warmUpCost } from "../side-by-side.js";
import type { Measured, Suite, SuiteContext, SuiteOutcome, SuitePage } from "../suite.js";
import { Worker } from "../worker.js";
import type { GatewayRequests } from "./gateway-process.js";
import { batchMessages, createLoops, type PublishWay, Sessions, subject } from "./sessions.js";

const payloadBytes = 100;
const sessionCounts = { full: [1, 10, 100], quick: [1, 2] };
const rounds = { full: 7, quick: 1 };
const quickRunSeconds = 0.02;
const firstTimes = 50;

/** Calls, one after another in each session. */
const callWays: readonly PublishWay[] = ["function", "dblink", "empty dblink"];

const page: SuitePage = {
  title: "Publishing from SQL",
  text: `A loop in PL/pgSQL publishes 100 bytes a turn to core NATS; an answer comes when NATS has the bytes. The gateway is a
process of its own, as \`hawser serve\` is.

- \`function\` is \`nats_publish_text\`.
- \`dblink\` is a call of \`dblink()\` with ready-made text that has the gateway publish the same message: the least that
  any function over it could cost. \`empty dblink\` is one that the gateway answers at once, without NATS.
- \`batch\` is \`nats_publish_text_batch\` with ${batchMessages.toLocaleString("en-US")} messages a call.`,
  charts: [{ title: "Calls a second", results: ["nats_publish_text, calls"] }],
};

/** The suite. */
export const sqlPublish: Suite = {
  name: "sql-publish",
  summary: "µs for a call of nats_publish_text, beside bare dblink calls; calls/s of 1 to 100 sessions; batches",
  seconds: 60,
  page,
  targets: [
    { name: "nats_publish_text", payloadBytes, variant: "1 session", baseline: "dblink", atMost: 1.2 },
    { name: "nats_publish_text", payloadBytes, variant: "1 session", baseline: "empty dblink", atMost: 1.7 },
    { name: "nats_publish_text_batch", payloadBytes, variant: "1 session", atLeast: 400_000 },
  ],
  run: (context) => withServers(context, (servers) => measure(context, servers)),
};

async function measure(context: SuiteContext, servers: BenchServers): Promise<Omit<SuiteOutcome, "servers">> {
  const { say, quick, endBy } = context;
  say("Preparing the database, and starting the gateway");
  await prepare(servers);
  const program = new URL("./gateway-process.ts", import.meta.url);
  const gateway = Worker.start<GatewayRequests>("gateway", program, { signal: context.signal });
  try {
    await gateway.request("open", servers.databaseUrl);
    await checkArrival(servers);
    const counts = quick ? sessionCounts.quick : sessionCounts.full;
    const results: Measured[] = [];
    for (const [position, count] of counts.entries()) {
      say(`Measuring with ${count} ${count === 1 ? "session" : "sessions"}`);
      const secondsLeft = (endBy - performance.now()) / 1000;
      results.push(...(await measureWith(context, servers, count, secondsLeft / (counts.length - position))));
    }
    return { results, notes: [] };
  } finally {
    await gateway.stop();
  }
}

async function prepare({ databaseUrl, natsUrl }: BenchServers): Promise<void> {
  await install({ databaseUrl });
  await createLoops(databaseUrl, payloadBytes);
  const { hostname, port } = new URL(natsUrl);
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    await client.query("SELECT hawser.set_nats_server($1)", [JSON.stringify({ host: hostname, port })]);
  } finally {
    await client.end();
  }
}

/** What is measured must also happen: as many messages as were published arrive at a subscriber. */
async function checkArrival({ databaseUrl, natsUrl }: BenchServers): Promise<void> {
  const expected = 100;
  const connection = await connect({ servers: natsUrl });
  const sessions = await Sessions.open(databaseUrl, 1);
  try {
    for (const way of ["function", "dblink", "batch"] as const) {
      const subscription = connection.subscribe(subject, { max: expected });
      await connection.flush();
      await sessions.run(way, expected);
      // Then the server has read all of it; it has sent it on before it answers us.
      await sessions.flush();
      await connection.flush();
      if (subscription.getReceived() !== expected) {
        throw new BenchFailure(`${way}: ${subscription.getReceived()} of ${expected} messages have arrived`);
      }
      subscription.unsubscribe();
    }
  } finally {
    await sessions.close();
    await connection.close();
  }
}

async function measureWith(
  { signal, quick }: SuiteContext,
  { databaseUrl }: BenchServers,
  count: number,
  secondsLeft: number,
): Promise<Measured[]> {
  const ways: readonly PublishWay[] = [...callWays, "batch"];
  const sessions = await Sessions.open(databaseUrl, count);
  try {
    const rates = await measureSideBySide(
      ways.map((way) => ({
        name: way,
        run: async (times) => {
          const actual = wholeBatches(way, times, count);
          return ((await sessions.run(way, actual)) * times) / actual;
        },
      })),
      {
        rounds: quick ? rounds.quick : rounds.full,
        secondsPerRun: quick ? quickRunSeconds : secondsLeft / ways.length / (rounds.full + warmUpCost),
        firstAmount: firstTimes,
        signal,
      },
    );
    return resultsOf(rates, count);
  } finally {
    await sessions.close();
  }
}

/** As many as are really sent, which are whole batches. */
function wholeBatches(way: PublishWay, times: number, sessions: number): number {
  if (way !== "batch" || times < batchMessages * sessions) return times;
  return Math.floor(times / batchMessages / sessions) * batchMessages * sessions;
}

function resultsOf(rates: ReadonlyMap<string, readonly number[]>, count: number): Measured[] {
  const variant = count === 1 ? "1 session" : `${count} sessions`;
  const samplesOf = (way: PublishWay): readonly number[] => rates.get(way)!;
  const baselines = callWays.slice(1);
  const call: Measured =
    count === 1
      ? {
          name: "nats_publish_text",
          payloadBytes,
          variant,
          unit: "µs",
          better: "lower",
          samples: samplesOf("function").map(microseconds),
          baselines: baselines.map((name) => ({ name, samples: samplesOf(name).map(microseconds) })),
        }
      : {
          name: "nats_publish_text, calls",
          payloadBytes,
          variant,
          unit: "calls/s",
          better: "higher",
          samples: samplesOf("function"),
          baselines: baselines.map((name) => ({ name, samples: samplesOf(name) })),
        };
  return [
    call,
    {
      name: "nats_publish_text_batch",
      payloadBytes,
      variant,
      unit: "messages/s",
      better: "higher",
      samples: samplesOf("batch"),
      baselines: [],
    },
  ];
}

function microseconds(rate: number): number {
  return 1e6 / rate;
}
