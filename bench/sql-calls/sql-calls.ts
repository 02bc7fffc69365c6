/**
 * The suite `sql-calls`: what it costs to call NATS from SQL and wait for the answer.
 */
import { cpus } from "node:os";
import { measureSideBySide, median, warmUpCost } from "../measure.js";
import type { ServeRequests } from "../serve-process.js";
import { type BenchServers, installFunctions, withServers } from "../servers.js";
import { createLoop, emptyCall, prepareLoops, Sessions } from "../sql-loops.js";
import {
  BenchFailure,
  type Measured,
  type Suite,
  type SuiteContext,
  type SuiteOutcome,
  type SuitePage,
} from "../suite.js";
import { Worker } from "../worker.js";
import { type Operation, operations, type Places, payloadBytes, sqlStatements } from "./operations.js";
import type { NatsRequests } from "./process.js";

const sessionCounts = { full: [1, 10, 100], quick: [1, 10] };
const fullRounds = 7;
const quickRunSeconds = 0.02;
const firstTimes = 50;

/** The baselines. */
const floor = "empty dblink + nats.js";
const one = "1 session";

const page: SuitePage = {
  title: "Calls from SQL",
  text: `A loop in PL/pgSQL makes calls that wait for NATS, with 100 bytes: \`nats_request_text\`, answered by a process of its
own with the same bytes; \`nats_put_text\` and \`nats_get_text\` of one key; \`nats_publish_text_stream\` into a stream in
files. The gateway is a process of its own, as \`hawser serve\` is. Several sessions share one gateway, and so one thread
of JavaScript.

- \`empty dblink + nats.js\` is a call of \`dblink()\` that the gateway answers at once, without NATS, and after it the same
  operation by nats.js in a process of its own, each measured by itself; with n sessions, n at once of each. So it has
  each necessary round trip once, and no work beside.
- **CPU** is the time on a processor for a call, of the backends and the gateway together; not of nats-server and of
  what answers. \`empty dblink\` is that of the empty call.

**What is in the way of the floor, and of four times the calls.** Beyond the floor, a call goes through the function (its text
as JSON, the look whether the connection is well, a savepoint, a pinned search_path), the gateway's checks of the call, and
its time limit. Where the processors are in use all the time, as the notes below say, more sessions can only make more calls by
taking less processor time for each; one session keeps a part of them busy already. Tried, and left out because it takes longer
or breaks a promise:
\`dblink_send_query\`, \`dblink_exec\`, buckets of nats.js that are kept open
([the decision](../decisions/nats.md)).`,
  charts: [
    { title: "A call from SQL, one session", results: operations.map((operation) => operation) },
    { title: "CPU of a call from SQL", results: operations.map((operation) => `${operation}, CPU`) },
  ],
};

/** The suite. */
export const sqlCalls: Suite = {
  name: "sql-calls",
  summary: "µs, calls/s and CPU of requests, kv and stream publishes from SQL, beside empty dblink calls and nats.js",
  seconds: 120,
  page,
  targets: [
    ...operations.map((name) => ({ name, payloadBytes, variant: one, baseline: floor, atMost: 1.15 })),
    ...operations.map((operation) => {
      return { name: `${operation}, calls`, payloadBytes, variant: "10 sessions", baseline: one, atLeast: 4 };
    }),
  ],
  run: (context) => withServers(context, (servers) => measure(context, servers)),
};

async function measure(context: SuiteContext, servers: BenchServers): Promise<Omit<SuiteOutcome, "servers">> {
  const { say, quick, signal, source } = context;
  say("Preparing the database, and starting the gateway");
  const name = `bench-sql-calls-${process.pid}`;
  const places: Places = { subject: name, streamSubject: `${name}.stream`, stream: name, bucket: name };
  await installFunctions(servers, source);
  await prepareLoops(servers.databaseUrl);
  await createLoop(servers.databaseUrl, emptyWay, emptyCall);
  for (const [operation, statement] of Object.entries(sqlStatements(places))) {
    await createLoop(servers.databaseUrl, operation, statement);
  }
  const program = new URL("./process.ts", import.meta.url);
  const gateway = Worker.start<ServeRequests>("gateway", new URL("../serve-process.ts", import.meta.url), {
    source,
    signal,
  });
  const answering = Worker.start<NatsRequests>("answering", program);
  const calling = Worker.start<NatsRequests>("calling", program);
  try {
    await gateway.request("open", { databaseUrl: servers.databaseUrl });
    for (const worker of [answering, calling]) await worker.request("open", { natsUrl: servers.natsUrl, places });
    await answering.request("answer", undefined);
    const counts = quick ? sessionCounts.quick : sessionCounts.full;
    const sessions = await Sessions.open(servers.databaseUrl, Math.max(...counts));
    try {
      await checkCalls(sessions, answering);
      return await measureCalls(context, counts, { sessions, gateway, calling });
    } finally {
      await sessions.close();
    }
  } finally {
    await calling.request("remove", undefined).catch(() => undefined);
    for (const worker of [calling, answering, gateway]) await worker.stop();
  }
}

/** Checks that each measured call has its effect in NATS. */
async function checkCalls(sessions: Sessions, answering: Worker<NatsRequests>): Promise<void> {
  const times = 10;
  const before = await answering.request("done", undefined);
  for (const operation of operations) await sessions.run(operation, times, 1);
  const after = await answering.request("done", undefined);
  for (const name of ["answers", "revision", "messages"] as const) {
    const done = after[name] - before[name];
    if (done !== times) throw new BenchFailure(`${times} calls: ${name} has grown by ${done}`);
  }
}

interface Parties {
  readonly sessions: Sessions;
  readonly gateway: Worker<ServeRequests>;
  readonly calling: Worker<NatsRequests>;
}

const emptyWay = "empty dblink";

/** CPU usage of a run. */
interface Usage {
  /** CPU time of backends and gateway for one call, in µs; undefined if unknown. */
  readonly cpuUs: number | undefined;
  /** Share of the machine's CPU time that was busy. */
  readonly busyShare: number;
}

async function measureCalls(
  { say, signal, quick, endBy, rounds: roundsOf }: SuiteContext,
  counts: readonly number[],
  { sessions, gateway, calling }: Parties,
): Promise<Omit<SuiteOutcome, "servers">> {
  say(`Measuring with ${counts.join(", ")} sessions`);
  const usages = new Map<string, Usage[]>();
  const rounds = quick ? 1 : roundsOf(fullRounds);
  const bySql = (count: number, way: string) => ({
    name: nameOf(count, "sql", way),
    run: async (times: number) => {
      const cores = coresUsed();
      await gateway.request("watch", undefined);
      const { seconds, backendSeconds } = await sessions.run(way, times, count);
      const { cpuSeconds } = await gateway.request("usage", undefined);
      const cpuUs = backendSeconds === undefined ? undefined : ((backendSeconds + cpuSeconds) / times) * 1e6;
      add(usages, nameOf(count, "sql", way), { cpuUs, busyShare: cores() });
      return seconds;
    },
  });
  const byNats = (count: number, operation: Operation) => ({
    name: nameOf(count, "nats.js", operation),
    run: (times: number) => calling.request("run", { operation, times, count }),
  });
  const contenders = counts.flatMap((count) => [
    bySql(count, emptyWay),
    ...operations.flatMap((operation) => [bySql(count, operation), byNats(count, operation)]),
  ]);
  const secondsLeft = (endBy - performance.now()) / 1000;
  const rates = await measureSideBySide(contenders, {
    rounds,
    secondsPerRun: quick ? quickRunSeconds : secondsLeft / contenders.length / (rounds + warmUpCost),
    firstAmount: firstTimes,
    signal,
  });
  const found: Found = {
    rates: (count, kind, way) => rates.get(nameOf(count, kind, way))!,
    usages: (count, way) => usages.get(nameOf(count, "sql", way))!.slice(-rounds),
  };
  return {
    results: operations.flatMap((operation) => resultsOf(found, counts, operation)),
    notes: counts.map((count) => {
      const shares = operations.map((operation) => {
        const busy = median(found.usages(count, operation).map(({ busyShare }) => busyShare));
        return `${operation} ${Math.round(busy * 100)} %`;
      });
      return `${sessionWords(count)}: of the machine's processors were in use, by all processes: ${shares.join(", ")}`;
    }),
  };
}

function nameOf(count: number, kind: "sql" | "nats.js", way: string): string {
  return `${count} ${kind} ${way}`;
}

function add<T>(lists: Map<string, T[]>, name: string, item: T): void {
  const list = lists.get(name);
  if (list === undefined) lists.set(name, [item]);
  else list.push(item);
}

interface Found {
  rates(count: number, kind: "sql" | "nats.js", way: string): readonly number[];
  usages(count: number, way: string): readonly Usage[];
}

function resultsOf({ rates, usages }: Found, counts: readonly number[], operation: Operation): Measured[] {
  const floorOf = (count: number): number[] => {
    const empty = rates(count, "sql", emptyWay);
    return rates(count, "nats.js", operation).map((rate, round) => 1 / (1 / rate + 1 / empty[round]!));
  };
  const calls = counts.map((count): Measured => {
    const common = { payloadBytes, variant: sessionWords(count) };
    const samples = rates(count, "sql", operation);
    if (count === 1) {
      const baselines = [{ name: floor, samples: floorOf(count).map(microseconds) }];
      return { ...common, name: operation, unit: "µs", better: "lower", samples: samples.map(microseconds), baselines };
    }
    const baselines = [
      { name: floor, samples: floorOf(count) },
      { name: one, samples: rates(1, "sql", operation) },
    ];
    return { ...common, name: `${operation}, calls`, unit: "calls/s", better: "higher", samples, baselines };
  });
  const used = counts.flatMap((count): Measured[] => {
    const samples = knownCpu(usages(count, operation));
    if (samples.length === 0) return [];
    const baselines = [{ name: emptyWay, samples: knownCpu(usages(count, emptyWay)) }];
    const variant = sessionWords(count);
    return [{ name: `${operation}, CPU`, payloadBytes, variant, unit: "µs", better: "lower", samples, baselines }];
  });
  return [...calls, ...used];
}

function knownCpu(usages: readonly Usage[]): number[] {
  return usages.flatMap(({ cpuUs }) => (cpuUs === undefined ? [] : [cpuUs]));
}

function sessionWords(count: number): string {
  return count === 1 ? one : `${count} sessions`;
}

function microseconds(rate: number): number {
  return 1e6 / rate;
}

/** Begins to look at the processors of the machine. @returns says which share of them has been in use */
function coresUsed(): () => number {
  const look = (): { busy: number; all: number } => {
    const times = cpus().map((core) => core.times);
    const all = times.reduce((sum, { user, nice, sys, idle, irq }) => sum + user + nice + sys + idle + irq, 0);
    return { busy: all - times.reduce((sum, { idle }) => sum + idle, 0), all };
  };
  const before = look();
  return () => {
    const after = look();
    // The counters have a resolution of 10 ms, and a quick run may take less.
    return (after.busy - before.busy) / Math.max(1, after.all - before.all);
  };
}
