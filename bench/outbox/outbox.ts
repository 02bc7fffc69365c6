/**
 * The suite `outbox`: messages that are written in the user's transaction, until a stream has acknowledged them.
 */
import { nodeFrom, packages } from "../baselines.js";
import { measureSideBySide, orderOf, warmUpCost } from "../measure.js";
import type { Latencies } from "../paced.js";
import { execute } from "../postgres.js";
import { formatValue } from "../report.js";
import type { ServeRequests } from "../serve-process.js";
import { type BenchServers, installFunctions, withServers } from "../servers.js";
import type { Measured, Suite, SuiteContext, SuiteOutcome, SuitePage } from "../suite.js";
import { Worker } from "../worker.js";
import type { ByHandRequests } from "./by-hand.js";
import { relayingByWork } from "./growth.js";
import type { WritingRequests } from "./process.js";
import { rowsOfStatement, rowsOfTransaction, type WayName, wayNames } from "./ways.js";

const payloadBytes = 100;
const full = { rounds: 5, relayed: 200_000, relayedSingly: 20_000, backlog: 100_000, latencies: 3_000 };
const quick = { rounds: 1, relayed: 2_000, relayedSingly: 200, backlog: 1_000, latencies: 100 };
const quickRunSeconds = 0.02;
const firstAmount = 50;

/** Share of the suite's time for the measurements of writing alone. */
const writingShare = 0.4;

/** Seconds reserved at the end for the measurements of growth. */
const growthSeconds = 120;
const perSecond = 1_000;

const ours = "Hawser";
const byHand = "by hand";
const throughNats = "through NATS";
const without = "without it";

const writings = [
  { variant: "1 session", sessions: 1, hasKeys: false, names: wayNames },
  { variant: "8 sessions", sessions: 8, hasKeys: false, names: wayNames },
  { variant: "8 sessions, with keys", sessions: 8, hasKeys: true, names: ["Hawser", "INSERT"] },
] as const;
const inStatement = `${formatValue(rowsOfStatement)} in a statement`;

/** Loads for the relay; each has a second variant with an old open transaction. */
const relayings = [
  { variant: `8 sessions, ${rowsOfTransaction} a transaction`, what: "relayed", rows: rowsOfTransaction },
  { variant: "8 sessions, 1 a transaction", what: "relayedSingly", rows: 1 },
  { variant: "a backlog", what: "backlog", rows: rowsOfStatement },
] as const;
const pinned = `${relayings[0].variant}, old transaction`;

const page: SuitePage = {
  title: "Outbox",
  text: `A message is written in the user's transaction, and published into a stream after its commit.

**enqueue** is the time of one call by a session, by node-postgres with a prepared statement: a transaction with one message, or,
as said, ${formatValue(rowsOfStatement)} messages in one statement and the time divided by them. Nothing relays meanwhile.

- \`INSERT\` is into the table of an outbox that one would write by hand: a number, subject, payload, headers, key, a random
  message id and the time. Hawser writes all of that, and what tells the relay which transaction it was; it checks the arguments,
  and with a key locks that.
- **pg-boss ${packages["pg-boss"]}** (\`send\` and \`insert\` with the session as \`db\`) and **graphile-worker ${packages["graphile-worker"]}** (\`add_job\` and
  \`add_jobs\`) write a job in the user's transaction. Where they write many, the statement is theirs.

**to the stream** is from the first commit until all messages are in a stream with file storage, each acknowledged. Eight sessions
commit as fast as they can, but wait while 20,000 messages are not in the stream; or one transaction has
${formatValue(full.backlog)} messages, and the time is from its commit. \`hawser serve\` is a process of its own.

- \`${byHand}\` is a process that does over and over: \`SELECT … ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED\`, publish all by
  nats.js, \`DELETE\`, commit; where there is nothing it waits 1 ms. It keeps no order: two transactions with one key may
  be published in the wrong one, and what it has published is published again where it fails before its commit.
- \`${without}\`: with *old transaction*, another session has a transaction open that has written and read. Then dead rows cannot be
  removed; this is ours without that.

**commit to acknowledgement**: ${formatValue(perSecond)} transactions a second, one message each, over eight sessions. The time is from when the client has heard of
the commit until the stream's acknowledgement is heard, by the same process.

**commit to a peer's handler**: the same with a topic, until the handler of a peer in that process is called. The
message is a row of the queue until then. \`${throughNats}\` is the commit to acknowledgement.

**time by …** is how the way to the stream grows, for each message, each size beside the smallest one: with the sessions that
commit, ${rowsOfTransaction} messages a transaction; with the payload; with the keys of a backlog, whose messages have them in turn; and with
what waits in a backlog. Of one key one message is under way at a time: so with few keys the time is that of an
answer of the stream, and falls with each key until the relay is busy.

**What is in the way.** While eight sessions commit, Postgres uses 57 % of a processor, \`serve\` 55 %, nats-server 45 % and the
sessions' process 6 %, of two: each waits at times for the disk or the answer of another one. A fifth of the time of
\`serve\` is garbage collection, the rest is spread over rows, headers and answers. 5,000 publishes under way instead of
2,000, and one write for many, took it from 37,000/s to 44,000/s on a quiet day of this machine. A backlog of a million goes at
55,000/s. One of 100,000 takes 1.5 s longer than that: where so much is new, its first page is looked for in the order
of the ids, through all that is kept for a replay, here the messages of all rounds before. To look for the least of the new ids
first would cost as much with a backlog of millions. With one message a transaction, the relay's commits take their part of
the two processors from the sessions; by hand, the deletes do.`,
  charts: [
    { title: "Enqueue", results: ["enqueue"], scale: "logarithmic" },
    { title: "To the stream", results: ["to the stream"] },
    {
      title: "Commit to acknowledgement",
      results: ["commit to acknowledgement, p50", "commit to acknowledgement, p99"],
    },
    {
      title: "Commit to a peer's handler",
      results: ["commit to a peer's handler, p50", "commit to a peer's handler, p99"],
    },
  ],
};

/** The suite. */
export const outbox: Suite = {
  name: "outbox",
  summary: "messages that commit with a transaction, beside INSERT, pg-boss, graphile-worker and by hand",
  seconds: 420,
  page,
  targets: [
    { name: "enqueue", payloadBytes, variant: "1 session", baseline: "INSERT", atMost: 1.3 },
    { name: "to the stream", payloadBytes, variant: relayings[0].variant, atLeast: 50_000 },
    { name: "to the stream", payloadBytes, variant: pinned, baseline: without, atLeast: 0.9 },
    { name: "commit to acknowledgement, p50", payloadBytes, atMost: 5_000 },
    { name: "commit to acknowledgement, p99", payloadBytes, atMost: 25_000 },
    { name: "commit to a peer's handler, p50", payloadBytes, atMost: 10_000 },
  ],
  run: (context) => withServers(context, (servers) => measure(context, servers)),
};

async function measure(whole: SuiteContext, servers: BenchServers): Promise<Omit<SuiteOutcome, "servers">> {
  const context = { ...whole, endBy: whole.endBy - growthSeconds * 1000 };
  const { say, source, signal } = context;
  say("Preparing the database");
  await installFunctions(servers, source);
  const options = { source, signal };
  const writing = Worker.start<WritingRequests>("writing", new URL("./process.ts", import.meta.url), {
    ...options,
    // pg-boss and graphile-worker ask for it.
    node: nodeFrom(22),
  });
  const hand = Worker.start<ByHandRequests>("by hand", new URL("./by-hand.ts", import.meta.url), options);
  const serve = Worker.start<ServeRequests>("serve", new URL("../serve-process.ts", import.meta.url), options);
  try {
    await writing.request("open", { ...servers, names: wayNames });
    await hand.request("open", servers);
    const results = await measureWriting(context, writing);
    say("Starting the relays");
    // The messages written so far are not needed.
    await execute(servers.databaseUrl, "TRUNCATE hawser_data.outbox, bench_outbox");
    await serve.request("open", { databaseUrl: servers.databaseUrl });
    results.push(...(await measureRelaying(context, writing, hand)));
    results.push(...(await relayingByWork(context, writing, payloadBytes)));
    return { results, notes: [`a backlog has ${formatValue(sizesOf(context).backlog)} messages`] };
  } finally {
    await Promise.all([writing.stop(), hand.stop(), serve.stop()]);
  }
}

function sizesOf({ quick: isQuick }: SuiteContext): typeof full {
  return isQuick ? quick : full;
}

async function measureWriting(context: SuiteContext, writing: Worker<WritingRequests>): Promise<Measured[]> {
  const { quick: isQuick, endBy, signal, say } = context;
  const rounds = context.rounds(sizesOf(context).rounds);
  const seconds = ((endBy - performance.now()) / 1000) * writingShare;
  const runs = writings.reduce<number>((sum, { names }) => sum + names.length, wayNames.length);
  const options = {
    rounds,
    secondsPerRun: isQuick ? quickRunSeconds : seconds / runs / (rounds + warmUpCost),
    firstAmount,
    signal,
  };
  const results: Measured[] = [];
  for (const { variant, sessions, hasKeys, names } of writings) {
    say(`Measuring enqueue, ${variant}`);
    const rates = await measureSideBySide(
      names.map((way) => ({
        name: way,
        run: (messages: number) =>
          writing
            .request("writeEach", { way, payloadBytes, messages, sessions, hasKeys })
            .then((took) => took * sessions),
      })),
      options,
    );
    results.push(writtenIn(variant, rates));
  }
  say(`Measuring enqueue, ${inStatement}`);
  const rates = await measureSideBySide(
    wayNames.map((way) => ({
      name: way,
      run: (amount: number) => {
        const messages = Math.ceil(amount / rowsOfStatement) * rowsOfStatement;
        const load = { way, payloadBytes, messages, rows: rowsOfStatement };
        return writing.request("writeMany", load).then((took) => (took * amount) / messages);
      },
    })),
    options,
  );
  return [...results, writtenIn(inStatement, rates)];
}

/** Calls of all sessions a second as the time of one call. */
function writtenIn(variant: string, rates: ReadonlyMap<string, readonly number[]>): Measured {
  const timesOf = (name: string): number[] => rates.get(name)!.map((rate) => 1e6 / rate);
  const [, ...baselines] = [...rates.keys()];
  return {
    name: "enqueue",
    payloadBytes,
    variant,
    unit: "µs",
    better: "lower",
    samples: timesOf(ours),
    baselines: baselines.map((name) => ({ name, samples: timesOf(name) })),
  };
}

type Relaying = (way: WayName) => Promise<number>;

async function measureRelaying(
  context: SuiteContext,
  writing: Worker<WritingRequests>,
  hand: Worker<ByHandRequests>,
): Promise<Measured[]> {
  const { say, signal } = context;
  const sizes = sizesOf(context);
  const rounds = context.rounds(sizes.rounds);
  const names = [ours, "INSERT"] as const;
  const relayed = async <T>(way: WayName, work: () => Promise<T>): Promise<T> => {
    signal.throwIfAborted();
    if (way === ours) return await work();
    await hand.request("start", undefined);
    try {
      return await work();
    } finally {
      await hand.request("stop", undefined);
    }
  };
  const relaying =
    ({ what, rows }: (typeof relayings)[number]): Relaying =>
    async (way) => {
      const messages = sizes[what];
      const load = { way, payloadBytes, messages, rows: Math.min(rows, messages) };
      const request = what === "backlog" ? "commitBacklog" : "commitAll";
      return messages / (await relayed(way, () => writing.request(request, load)));
    };
  const withOldTransaction =
    (run: Relaying): Relaying =>
    async (way) => {
      await writing.request("pin", true);
      try {
        return await run(way);
      } finally {
        await writing.request("pin", false);
      }
    };
  const kinds: { variant: string; run: Relaying }[] = [
    ...relayings.map((each) => ({ variant: each.variant, run: relaying(each) })),
    { variant: pinned, run: withOldTransaction(relaying(relayings[0])) },
  ];
  const rates = new Map(kinds.map(({ variant }) => [variant, new Map(names.map((name) => [name, [] as number[]]))]));
  const latencies = new Map(names.map((name) => [name, [] as Latencies[]]));
  const handlings: Latencies[] = [];
  // The first round is the warm-up.
  for (let round = 0; round <= rounds; round++) {
    if (round > 1 && performance.now() > context.endBy) break;
    say(round === 0 ? "Warming up the relays" : `Measuring the relays, round ${round} of ${rounds}`);
    for (const { variant, run } of orderOf(kinds, round)) {
      for (const name of orderOf(names, round)) {
        const rate = await run(name);
        if (round > 0) rates.get(variant)!.get(name)!.push(rate);
      }
    }
    for (const way of orderOf(names, round)) {
      const load = { way, payloadBytes, messages: sizes.latencies, perSecond };
      const measured = await relayed(way, () => writing.request("measureLatency", load));
      if (round > 0) latencies.get(way)!.push(measured);
    }
    signal.throwIfAborted();
    const pace = { payloadBytes, messages: sizes.latencies, perSecond };
    const handling = await writing.request("measureHandling", pace);
    if (round > 0) handlings.push(handling);
  }
  const samplesOf = (variant: string, name: (typeof names)[number]): number[] => rates.get(variant)!.get(name)!;
  return [
    ...kinds.map(({ variant }) => ({
      name: "to the stream",
      payloadBytes,
      variant,
      unit: "messages/s",
      better: "higher" as const,
      samples: samplesOf(variant, ours),
      baselines: [
        { name: byHand, samples: samplesOf(variant, "INSERT") },
        ...(variant === pinned ? [{ name: without, samples: samplesOf(relayings[0].variant, ours) }] : []),
      ],
    })),
    ...(["p50", "p99"] as const).map((percentile) => ({
      name: `commit to acknowledgement, ${percentile}`,
      payloadBytes,
      unit: "µs",
      better: "lower" as const,
      samples: latencies.get(ours)!.map((each) => each[percentile]),
      baselines: [{ name: byHand, samples: latencies.get("INSERT")!.map((each) => each[percentile]) }],
    })),
    ...(["p50", "p99"] as const).map((percentile) => ({
      name: `commit to a peer's handler, ${percentile}`,
      payloadBytes,
      unit: "µs",
      better: "lower" as const,
      samples: handlings.map((each) => each[percentile]),
      baselines: [{ name: throughNats, samples: latencies.get(ours)!.map((each) => each[percentile]) }],
    })),
  ];
}
