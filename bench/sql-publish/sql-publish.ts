/**
 * The suite `sql-publish`: what it costs to publish from SQL.
 */
import { connect } from "@nats-io/transport-node";
import { measureSideBySide, warmUpCost } from "../measure.js";
import { execute } from "../postgres.js";
import type { ServeRequests } from "../serve-process.js";
import { type BenchServers, installFunctions, withServers } from "../servers.js";
import { bareCall, createLoop, emptyCall, prepareLoops, Sessions } from "../sql-loops.js";
import {
  BenchFailure,
  type Measured,
  type Suite,
  type SuiteContext,
  type SuiteOutcome,
  type SuitePage,
} from "../suite.js";
import { Worker } from "../worker.js";

/** Calls that a loop repeats. */
const callWays = ["function", "dblink", "empty dblink"] as const;
type PublishWay = (typeof callWays)[number] | "batch";

/** Ways to publish a message for each inserted row. */
const rowWays = [
  "row trigger",
  "statement trigger",
  "row trigger, outbox",
  "statement trigger, outbox",
  "no trigger",
] as const;
type RowWay = (typeof rowWays)[number];

/** Rows of one statement. */
const statementRows = 1_000;

/** Subject that is unique to the run, as other runs may use the same nats-server. */
const subject = `bench.sql-publish.${process.pid}`;

/** Messages of one batch. */
const batchMessages = 10_000;

const payloadBytes = 100;
const payload = "x".repeat(payloadBytes);
const sessionCounts = { full: [1, 10, 100], quick: [1, 2] };
const fullRounds = 7;
const quickRunSeconds = 0.02;
const firstTimes = 50;

const page: SuitePage = {
  title: "Publishing from SQL",
  text: `A loop in PL/pgSQL publishes 100 bytes a turn to core NATS; an answer comes when NATS has the bytes. The gateway is a
process of its own, as \`hawser serve\` is.

- \`function\` is \`nats_publish_text\`.
- \`dblink\` is a call of \`dblink()\` with ready-made text that has the gateway publish the same message: the least that
  any function over it could cost. \`empty dblink\` is one that the gateway answers at once, without NATS.
- \`batch\` is \`nats_publish_text_batch\` with ${batchMessages.toLocaleString("en-US")} messages a call.
- **an inserted row** is one of ${statementRows.toLocaleString("en-US")} that an \`INSERT\` writes, each with a message: published by
  \`nats_publish_text\` in a trigger for each row, by \`nats_publish_text_batch\` in a trigger for each statement, or
  enqueued by \`hawser.enqueue\` and its batch in the same places. What the relay does with enqueued messages goes on
  meanwhile, in the same gateway process.

**What is in the way.** The function takes 30 µs more of its backend's processor than the bare call. With parts of it left out
in turn, the text of the call as JSON was 10 to 15 of them, \`SECURITY DEFINER\` and the pinned search_path 13, the look whether the
connection is well 7, and the savepoint that tells a broken connection from an error 6. All of them keep a promise; that line ends
leave the base64 by \`replace\` instead of \`translate\` saves 1 µs for 100 bytes, and 0.8 ms for 64 KiB.`,
  charts: [
    { title: "A call, one session", results: ["nats_publish_text"] },
    { title: "Calls a second", results: ["nats_publish_text, calls"] },
    { title: "A message for each inserted row", results: ["an inserted row"], scale: "logarithmic" },
  ],
};

/** The suite. */
export const sqlPublish: Suite = {
  name: "sql-publish",
  summary: "µs for a call of nats_publish_text, beside bare dblink calls; calls/s of 1 to 100 sessions; batches",
  seconds: 75,
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
  await installFunctions(servers, context.source);
  await prepare(servers.databaseUrl);
  const program = new URL("../serve-process.ts", import.meta.url);
  const gateway = Worker.start<ServeRequests>("gateway", program, { source: context.source, signal: context.signal });
  try {
    await gateway.request("open", { databaseUrl: servers.databaseUrl });
    await checkArrival(servers);
    const counts = quick ? sessionCounts.quick : sessionCounts.full;
    const results: Measured[] = [];
    for (const [position, count] of counts.entries()) {
      say(`Measuring with ${count} ${count === 1 ? "session" : "sessions"}`);
      const secondsLeft = (endBy - performance.now()) / 1000;
      results.push(...(await measureWith(context, servers, count, secondsLeft / (counts.length + 1 - position))));
    }
    say(`Measuring inserts of ${statementRows.toLocaleString("en-US")} rows`);
    results.push(...(await measureRows(context, servers, (endBy - performance.now()) / 1000)));
    return { results, notes: [] };
  } finally {
    await gateway.stop();
  }
}

/** Checks that a subscriber receives as many messages as are published in each way. */
async function checkArrival({ databaseUrl, natsUrl }: BenchServers): Promise<void> {
  const connection = await connect({ servers: natsUrl });
  const sessions = await Sessions.open(databaseUrl, 1);
  try {
    for (const way of ["function", "dblink", "batch"] as const) {
      const expected = way === "batch" ? batchMessages : 100;
      const subscription = connection.subscribe(subject, { max: expected });
      await connection.flush();
      await sessions.run(way, way === "batch" ? 1 : expected);
      // Then the server has read all of it; it has sent it on before it answers us.
      await sessions.query("SELECT public.nats_flush()");
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
  { signal, quick, rounds: roundsOf }: SuiteContext,
  { databaseUrl }: BenchServers,
  count: number,
  secondsLeft: number,
): Promise<Measured[]> {
  const ways: readonly PublishWay[] = [...callWays, "batch"];
  const sessions = await Sessions.open(databaseUrl, count);
  const rounds = quick ? 1 : roundsOf(fullRounds);
  try {
    const rates = await measureSideBySide(
      ways.map((way) => ({
        name: way,
        run: async (times) => {
          if (way !== "batch") return (await sessions.run(way, times)).seconds;
          const turns = Math.max(count, Math.round(times / batchMessages / count) * count);
          return ((await sessions.run(way, turns)).seconds * times) / (turns * batchMessages);
        },
      })),
      {
        rounds,
        secondsPerRun: quick ? quickRunSeconds : secondsLeft / ways.length / (rounds + warmUpCost),
        firstAmount: firstTimes,
        signal,
      },
    );
    return resultsOf(rates, count);
  } finally {
    await sessions.close();
  }
}

/** A session inserts rows, many with a statement. */
async function measureRows(
  { signal, quick, rounds: roundsOf }: SuiteContext,
  { databaseUrl }: BenchServers,
  secondsLeft: number,
): Promise<Measured[]> {
  const sessions = await Sessions.open(databaseUrl, 1);
  const rounds = quick ? 1 : roundsOf(fullRounds);
  try {
    const rates = await measureSideBySide(
      rowWays.map((way) => ({
        name: way,
        run: async (rows) => {
          const statements = Math.max(1, Math.round(rows / statementRows));
          return ((await sessions.run(way, statements)).seconds * rows) / (statements * statementRows);
        },
      })),
      {
        rounds,
        secondsPerRun: quick ? quickRunSeconds : secondsLeft / rowWays.length / (rounds + warmUpCost),
        firstAmount: statementRows,
        signal,
      },
    );
    const samplesOf = (way: RowWay) => rates.get(way)!.map(microseconds);
    return rowWays.slice(0, -1).map((way) => ({
      name: "an inserted row",
      payloadBytes,
      variant: way,
      unit: "µs",
      better: "lower",
      samples: samplesOf(way),
      baselines: [{ name: "no trigger", samples: samplesOf("no trigger") }],
    }));
  } finally {
    await sessions.close();
  }
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

/** Makes the loops, and the tables that a loop writes to. */
async function prepare(databaseUrl: string): Promise<void> {
  await prepareLoops(databaseUrl);
  const base64 = Buffer.from(payload).toString("base64");
  await createLoop(databaseUrl, "function", `PERFORM public.nats_publish_text('${subject}', '${payload}');`);
  await createLoop(databaseUrl, "dblink", bareCall(`Publish {"subject":"${subject}","payload":"${base64}"}`));
  await createLoop(databaseUrl, "empty dblink", emptyCall);
  await createLoop(
    databaseUrl,
    "batch",
    `PERFORM public.nats_publish_text_batch('${subject}', payloads);`,
    `payloads CONSTANT text[] := array_fill('${payload}'::text, ARRAY[${batchMessages}]);`,
  );
  for (const [number, way] of rowWays.entries()) {
    const table = `public.bench_rows_${number}`;
    await execute(databaseUrl, `CREATE TABLE ${table} (id bigserial PRIMARY KEY, payload text)`);
    await execute(databaseUrl, triggers[way](table));
    await createLoop(
      databaseUrl,
      way,
      `INSERT INTO ${table} (payload) SELECT '${payload}' FROM generate_series(1, ${statementRows});`,
    );
  }
}

/** The triggers of a table. */
const triggers: Record<RowWay, (table: string) => string> = {
  "no trigger": () => "",
  "row trigger": (table) => rowTrigger(table, `public.nats_publish_text('${subject}', NEW.payload)`),
  "statement trigger": (table) =>
    statementTrigger(
      table,
      `public.nats_publish_text_batch('${subject}', ARRAY(SELECT payload FROM inserted ORDER BY id))`,
    ),
  "row trigger, outbox": (table) => rowTrigger(table, `hawser.enqueue('${subject}', NEW.payload, stream => false)`),
  "statement trigger, outbox": (table) =>
    statementTrigger(
      table,
      `hawser.enqueue_batch('${subject}', ARRAY(SELECT payload FROM inserted ORDER BY id), stream => false)`,
    ),
};

function rowTrigger(table: string, call: string): string {
  return `${triggerFunction(table, call)}
    CREATE TRIGGER bench AFTER INSERT ON ${table} FOR EACH ROW EXECUTE FUNCTION ${table}_trigger()`;
}

function statementTrigger(table: string, call: string): string {
  return `${triggerFunction(table, call)}
    CREATE TRIGGER bench AFTER INSERT ON ${table} REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT
    EXECUTE FUNCTION ${table}_trigger()`;
}

function triggerFunction(table: string, call: string): string {
  return `CREATE FUNCTION ${table}_trigger() RETURNS trigger LANGUAGE plpgsql
    AS $$BEGIN PERFORM ${call}; RETURN NULL; END$$;`;
}
