/**
 * The suite `sql-publish`: what it costs to publish from SQL.
 */
import { connect } from "@nats-io/transport-node";
import type pg from "pg";
import { measureSideBySide, warmUpCost } from "../measure.js";
import { connected } from "../postgres.js";
import type { ServeRequests } from "../serve-process.js";
import { type BenchServers, installFunctions, withServers } from "../servers.js";
import {
  BenchFailure,
  type Measured,
  type Suite,
  type SuiteContext,
  type SuiteOutcome,
  type SuitePage,
} from "../suite.js";
import { Worker } from "../worker.js";

/** What a turn of the loop does. */
type PublishWay = "function" | "dblink" | "empty dblink" | "batch";

/** Where the messages go: of the run's own, as others may measure with the same nats-server. */
const subject = `bench.sql-publish.${process.pid}`;

/** Messages of one batch. */
const batchMessages = 10_000;

const payloadBytes = 100;
const sessionCounts = { full: [1, 10, 100], quick: [1, 2] };
const fullRounds = 7;
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
  charts: [
    { title: "A call, one session", results: ["nats_publish_text"] },
    { title: "Calls a second", results: ["nats_publish_text, calls"] },
  ],
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
  await installFunctions(servers, context.source);
  await createLoops(servers.databaseUrl, payloadBytes);
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
      results.push(...(await measureWith(context, servers, count, secondsLeft / (counts.length - position))));
    }
    return { results, notes: [] };
  } finally {
    await gateway.stop();
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
          const actual = wholeBatches(way, times, count);
          return ((await sessions.run(way, actual)) * times) / actual;
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

/** Loops that count by themselves how long they took, in seconds. The text of the dblink calls is ready-made. */
const functions: Record<PublishWay, (payloadBytes: number) => string> = {
  function: (bytes) => loop(`PERFORM public.nats_publish_text('${subject}', ${sqlPayload(bytes)});`),
  dblink: (bytes) => {
    const payload = Buffer.alloc(bytes, "x").toString("base64");
    const call = `Publish {"subject":"${subject}","payload":"${payload}"}`;
    return loop(`PERFORM FROM hawser_dblink.dblink('bench', '${call}') AS answer (r text);`);
  },
  "empty dblink": () => loop(`PERFORM FROM hawser_dblink.dblink('bench', 'Ping') AS answer (r text);`),
  batch: (bytes) => `
    DECLARE
      payloads CONSTANT text[] := array_fill(${sqlPayload(bytes)}, ARRAY[least(times, ${batchMessages})]);
      started timestamptz := clock_timestamp();
    BEGIN
      FOR turn IN 1..greatest(1, times / ${batchMessages}) LOOP
        PERFORM public.nats_publish_text_batch('${subject}', payloads);
      END LOOP;
      RETURN extract(epoch FROM clock_timestamp() - started);
    END`,
};

function sqlPayload(bytes: number): string {
  return `'${"x".repeat(bytes)}'::text`;
}

function loop(statement: string): string {
  return `
    DECLARE
      started timestamptz := clock_timestamp();
    BEGIN
      FOR turn IN 1..times LOOP
        ${statement}
      END LOOP;
      RETURN extract(epoch FROM clock_timestamp() - started);
    END`;
}

/** Makes the loops. */
async function createLoops(databaseUrl: string, payloadBytes: number): Promise<void> {
  const client = await connected(databaseUrl);
  try {
    for (const [way, body] of Object.entries(functions)) {
      await client.query(
        `CREATE FUNCTION public.${loopName(way as PublishWay)}(times integer) RETURNS double precision
         LANGUAGE plpgsql AS $loop$${body(payloadBytes)}$loop$`,
      );
    }
  } finally {
    await client.end();
  }
}

function loopName(way: PublishWay): string {
  return `bench_${way.replace(" ", "_")}`;
}

/** Some database sessions. Each has the connection of the functions, and one of the name `bench` for the bare calls. */
class Sessions {
  readonly #clients: readonly pg.Client[];

  private constructor(clients: readonly pg.Client[]) {
    this.#clients = clients;
  }

  static async open(databaseUrl: string, count: number): Promise<Sessions> {
    const clients: pg.Client[] = [];
    const sessions = new Sessions(clients);
    try {
      for (let number = 0; number < count; number++) {
        const client = await connected(databaseUrl);
        clients.push(client);
        await client.query("SELECT hawser_dblink.dblink_connect('bench', hawser.gateway_conninfo())");
      }
      return sessions;
    } catch (error) {
      await sessions.close();
      throw error;
    }
  }

  /** All of them do it, sharing the times between them. @returns how long the slowest took, in seconds */
  async run(way: PublishWay, times: number): Promise<number> {
    const each = Math.max(1, Math.round(times / this.#clients.length));
    const seconds = await Promise.all(
      this.#clients.map(async (client) => {
        const { rows } = await client.query<{ seconds: number }>(
          `SELECT public.${loopName(way)}($1::integer) AS seconds`,
          [each],
        );
        return rows[0]!.seconds;
      }),
    );
    return Math.max(...seconds);
  }

  /** Resolves when NATS has read what they published. */
  async flush(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.query("SELECT public.nats_flush()")));
  }

  async close(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.end()));
  }
}
