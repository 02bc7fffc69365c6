/**
 * The suite `liner`: the workload of the benchmark that comes with liner, a broker without a server that is written in
 * Rust, whose tables and calls Hawser's peers know.
 */
import { baselineOf, LineProgram, missingNote } from "../baselines.js";
import { ProcessPair } from "../live/pair.js";
import type { Delivery } from "../live/ways.js";
import { orderOf } from "../measure.js";
import { formatBytes, formatValue } from "../report.js";
import { type BenchDatabase, type BenchServers, createDatabase, withServers } from "../servers.js";
import {
  BenchFailure,
  type Measured,
  type Suite,
  type SuiteContext,
  type SuiteOutcome,
  type SuitePage,
} from "../suite.js";

/** A cycle of each payload size. */
const cycles = [
  { payloadBytes: 100, messages: 10_000 },
  { payloadBytes: 1024, messages: 10_000 },
  { payloadBytes: 64 * 1024, messages: 1_000 },
];
const quickCycles = [{ payloadBytes: 1024, messages: 100 }];
const full = { rounds: 10, cyclesOfRound: 4, warmUp: 8 };
const quick = { rounds: 1, cyclesOfRound: 2, warmUp: 1 };

/** Attempts at a cycle in which liner loses messages. */
const maxTries = 10;

const deliveries: readonly Delivery[] = ["at-most-once", "at-least-once"];
const processCounts = [1, 2] as const;
const nameOf = (delivery: Delivery, processes: 1 | 2): string =>
  `${delivery}, ${processes === 1 ? "one process" : "two processes"}`;

const page: SuitePage = {
  title: "liner's own workload",
  text: `Very many messages in one go: a cycle. ${cycles.map(({ payloadBytes, messages }) => `${formatValue(messages)} of ${formatBytes(payloadBytes)}`).join(", ")}. The time is from the
first send until the last message has been handled, and with Hawser every promise has settled: at least once, that is a
commit in Postgres. ${full.rounds * full.cyclesOfRound} cycles, with sender and receiver in one process, as liner's own benchmark has them, and in two.

\`liner\` is liner 1.4.1 (Rust, both clients in one process, on the same Postgres), built from its crate and run in turn
with ours. At least once it delivers first, and acknowledges once a second, which is not in its time; when its sender
dies before, what it had accepted is lost. A cycle of which messages do not come within 12 s is not counted but said below,
and liner is started anew on an empty database. A cycle is one burst; for a stream that goes on, see the sections above.

**What is in the way.** liner's two clients are threads, which use both processors also in one process. Ours in one process are
one thread, which is busy from the first send to the last commit. At least once the cycle contains our commits, and not liner's
acknowledgements: a message that is handled waits for the commit that is under way and for its own, some 4 of the 9 ms of
a burst of short ones. Bursts of 64 KiB take about as long with two processes as with one, or twice as long: V8 counts the memory of payloads,
and a process with a small heap has its collector go through all of it after every 26 MB that are new. Once it does, it goes on
so; whether it does differs from one start of the receiver to another. To keep used payloads for the next messages would end
that, but a handler may keep them.`,
  charts: deliveries.map((delivery) => ({
    title: `A cycle, ${delivery}`,
    results: processCounts.map((processes) => nameOf(delivery, processes)),
    scale: "logarithmic",
  })),
};

/** The suite. */
export const liner: Suite = {
  name: "liner",
  summary: "ms for a burst of 10,000 messages of 100 B and 1 KiB, 1,000 of 64 KiB, beside liner itself",
  seconds: 60,
  page,
  targets: deliveries.flatMap((delivery) =>
    processCounts.flatMap((processes) =>
      cycles.map(({ payloadBytes }, index) => ({
        name: nameOf(delivery, processes),
        payloadBytes,
        baseline: "liner",
        atMost: 1 / [1.5, 1.2, 1][index]!,
      })),
    ),
  ),
  run: (context) => withServers(context, (servers) => measure(context, servers)),
};

async function measure(context: SuiteContext, servers: BenchServers): Promise<Omit<SuiteOutcome, "servers">> {
  const program = baselineOf("HAWSER_BENCH_LINER");
  const native = program === undefined ? undefined : new NativeLiner(program, servers, context);
  const pairs: ProcessPair[] = [];
  context.say("Starting the processes");
  try {
    for (const processes of processCounts) {
      pairs.push(await ProcessPair.start(context, servers, deliveries, processes));
    }
    const results: Measured[] = [];
    for (const cycle of context.quick ? quickCycles : cycles) {
      context.say(`Measuring ${formatBytes(cycle.payloadBytes)}`);
      results.push(...(await measureCycle(context, pairs, native, cycle)));
    }
    const names = [...new Set(results.map(({ name }) => name))];
    return {
      results: names.flatMap((name) => results.filter((result) => result.name === name)),
      notes: [native === undefined ? missingNote("liner", "HAWSER_BENCH_LINER") : native.note],
    };
  } finally {
    await native?.stop();
    for (const pair of pairs) await pair.stop();
  }
}

/** All ways with one payload size, in turn. */
async function measureCycle(
  context: SuiteContext,
  pairs: readonly ProcessPair[],
  native: NativeLiner | undefined,
  { payloadBytes, messages }: (typeof cycles)[number],
): Promise<Measured[]> {
  const { rounds, cyclesOfRound, warmUp } = context.quick ? quick : full;
  const ways = deliveries.flatMap((delivery) => [
    ...processCounts.map((processes, index) => ({
      name: nameOf(delivery, processes),
      cycle: async () => (await pairs[index]!.send({ way: delivery, payloadBytes, messages })).seconds * 1000,
    })),
    ...(native === undefined
      ? []
      : [{ name: `liner, ${delivery}`, cycle: () => native.cycle(delivery, payloadBytes, messages) }]),
  ]);
  const times = new Map<string, number[]>(ways.map(({ name }) => [name, []]));
  for (const { cycle } of ways) for (let i = 0; i < warmUp; i++) await cycle();
  for (let round = 0; round < context.rounds(rounds); round++) {
    for (const { name, cycle } of orderOf(ways, round)) {
      context.signal.throwIfAborted();
      for (let i = 0; i < cyclesOfRound; i++) times.get(name)!.push(await cycle());
    }
  }
  return deliveries.flatMap((delivery) =>
    processCounts.map((processes) => ({
      name: nameOf(delivery, processes),
      payloadBytes,
      unit: "ms",
      better: "lower" as const,
      samples: times.get(nameOf(delivery, processes))!,
      baselines: native === undefined ? [] : [{ name: "liner", samples: times.get(`liner, ${delivery}`)! }],
    })),
  );
}

/** A liner with a database of its own: in the database of an earlier liner, new messages count as duplicates. */
interface RunningLiner {
  readonly program: LineProgram;
  readonly database: BenchDatabase;
}

/** liner itself. It loses messages at times, mostly soon after its start; then it is started anew. */
class NativeLiner {
  #running: RunningLiner | undefined;
  #cycles = 0;
  #lost = 0;

  readonly #path: string;
  readonly #servers: BenchServers;
  readonly #context: SuiteContext;

  constructor(path: string, servers: BenchServers, context: SuiteContext) {
    this.#path = path;
    this.#servers = servers;
    this.#context = context;
  }

  /** Runs a cycle of which nothing is lost. @returns ms @throws BenchFailure if each of several has lost messages */
  async cycle(delivery: Delivery, payloadBytes: number, messages: number): Promise<number> {
    for (let tries = 0; tries < maxTries; tries++) {
      this.#running ??= await this.#start();
      this.#cycles += 1;
      const milliseconds = await this.#running.program.order(`${delivery} ${payloadBytes} ${messages}`);
      if (milliseconds > 0) return milliseconds;
      this.#lost += 1;
      this.#context.say("liner has lost messages; it is started anew");
      await this.stop();
    }
    throw new BenchFailure(`liner has lost messages ${maxTries} times in a row`);
  }

  /** A note on the number of cycles in which liner lost messages. */
  get note(): string {
    return `liner lost messages in ${formatValue(this.#lost)} of ${formatValue(this.#cycles)} cycles`;
  }

  async stop(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    await running?.program.stop();
    await running?.database.drop();
  }

  async #start(): Promise<RunningLiner> {
    const database = await createDatabase(this.#servers, this.#context);
    return { program: LineProgram.start("liner", this.#path, [database.url]), database };
  }
}
