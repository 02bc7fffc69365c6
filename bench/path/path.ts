/**
 * The suite `path`: files, functions and calls that one message or one job passes, and the CPU and garbage that a message costs.
 */
import { type BenchServers, withServers } from "../servers.js";
import type { Measured, Suite, SuiteContext, SuiteOutcome, SuitePage } from "../suite.js";
import { Worker } from "../worker.js";
import type { Calls, PathRequests, Used } from "./process.js";

const payloadBytes = 100;
/** Messages sent one after another before anything is counted, until the path is as it stays. */
const full = { warmUp: 1_000, counted: 300, rounds: 3, single: 500, burst: 10_000, jobs: 300 };
const quick = { warmUp: 50, counted: 50, rounds: 1, single: 50, burst: 200, jobs: 50 };
const atATime = 1_000;
/** A function belongs to the path if a message calls it about once: timers and sums of many messages do it less often. */
const callsOfMessage = 0.5;

const rooms = [
  "queue",
  "handlers",
  "peer",
  "channel",
  "wire",
  "transport",
  "store",
  "postgres",
  "sql-clients",
  "runtime",
];
const folders = [...rooms, "generated"];
const whole = "all";

const page: SuitePage = {
  title: "The path of a message",
  text: `One peer sends 100 bytes to another, at least once, in a process of its own, until the promise resolves \`delivered\`.

- **files**, **functions** and **calls** of \`src\` and \`generated\` that one message passes in both processes, by folder. V8 counts
  them (precise coverage, nothing optimized) while ${full.counted} messages are sent one after another on a warm path; what an idle period of the same length
  calls is subtracted. A function counts if a message calls it at least every other time. One that both processes call counts once, its
  calls are added up.
- The same **of a job**: one process calls \`enqueue\`, and a transactional handler of the other one handles the job, which is deleted
  with its commit.
- **CPU** and **garbage**, which is what is allocated on V8's heap, are of each process for one message, of messages one at a time or
  in bursts of ${atATime}, without coverage.`,
  charts: [
    { title: "Calls for a message", results: ["calls"] },
    { title: "Garbage of a message", results: ["garbage"], scale: "logarithmic" },
  ],
};

/** The suite. */
export const path: Suite = {
  name: "path",
  summary: "files, functions and calls that one message or job passes, and a message's CPU and garbage",
  seconds: 20,
  page,
  targets: [],
  run: (context) => withServers(context, (servers) => measure(context, servers)),
};

type Processes = Readonly<Record<"sender" | "listener", Worker<PathRequests>>>;

async function measure(context: SuiteContext, { databaseUrl }: BenchServers): Promise<Omit<SuiteOutcome, "servers">> {
  const sizes = context.quick ? quick : full;
  const { warmUp } = sizes;
  const rounds = context.quick ? sizes.rounds : context.rounds(sizes.rounds);
  context.say("Measuring CPU and garbage");
  const costs = new Map<string, Used[]>();
  await withProcesses(context, databaseUrl, { warmUp, counting: false }, async (processes) => {
    for (let round = 0; round < rounds; round++) {
      context.signal.throwIfAborted();
      for (const [how, messages, size] of [
        ["one at a time", sizes.single, 1],
        ["burst", sizes.burst, atATime],
      ] as const) {
        for (const [name, used] of await costsOf(processes, messages, size)) {
          const variant = `${how}, ${name}`;
          costs.set(variant, [...(costs.get(variant) ?? []), used]);
        }
      }
    }
  });
  context.say("Counting calls");
  const [ofMessage, ofJob] = await withProcesses(
    context,
    databaseUrl,
    { warmUp, counting: true },
    async (processes) => {
      const { sender, listener } = processes;
      const messages = sizes.counted;
      const send = () => sender.request("send", { payloadBytes, messages, atATime: 1 });
      const calls = await callsOf(processes, messages, send);
      await listener.request("handleJobs", undefined);
      const enqueue = () => sender.request("enqueue", { databaseUrl, jobs: sizes.jobs });
      await enqueue();
      return [calls, await callsOf(processes, sizes.jobs, enqueue)] as const;
    },
  );
  return { results: [...pathOf(ofMessage), ...pathOf(ofJob, " of a job"), ...costsMeasured(costs)], notes: [] };
}

/** Starts both processes, which count calls if that is asked for, and stops them after `use`. */
async function withProcesses<R>(
  { source }: SuiteContext,
  databaseUrl: string,
  { warmUp, counting }: { readonly warmUp: number; readonly counting: boolean },
  use: (processes: Processes) => Promise<R>,
): Promise<R> {
  const program = new URL("./process.ts", import.meta.url);
  const listener = Worker.start<PathRequests>("listening", program, { source });
  const sender = Worker.start<PathRequests>("sending", program, { source });
  try {
    if (counting) await Promise.all([sender, listener].map((process) => process.request("count", undefined)));
    await listener.request("listen", { databaseUrl });
    await sender.request("connect", { databaseUrl });
    await sender.request("send", { payloadBytes, messages: warmUp, atATime: 1 });
    await sender.request("send", { payloadBytes, messages: warmUp, atATime });
    return await use({ sender, listener });
  } finally {
    await sender.stop();
    await listener.stop();
  }
}

/** Sends messages. @returns what one of them has cost each process */
async function costsOf(processes: Processes, messages: number, size: number): Promise<[string, Used][]> {
  const each = Object.entries(processes);
  await Promise.all(each.map(([, process]) => process.request("watch", undefined)));
  await processes.sender.request("send", { payloadBytes, messages, atATime: size });
  return await Promise.all(
    each.map(async ([name, process]): Promise<[string, Used]> => {
      const { cpuSeconds, garbageBytes } = await process.request("used", undefined);
      return [name, { cpuSeconds: cpuSeconds / messages, garbageBytes: garbageBytes / messages }];
    }),
  );
}

/**
 * Counts the calls of a message in both processes, of each function that it passes.
 *
 * @param send sends so many messages. Resolves with the time in ms that it took
 */
async function callsOf(processes: Processes, messages: number, send: () => Promise<number>): Promise<Calls> {
  const both = Object.values(processes);
  const taken = () => Promise.all(both.map((process) => process.request("calls", undefined)));
  const idleMs = await send();
  await taken();
  await processes.sender.request("idle", idleMs);
  const idle = await taken();
  const ms = await send();
  const busy = await taken();
  const calls: Record<string, number> = {};
  for (const [index, counts] of busy.entries()) {
    for (const [name, count] of Object.entries(counts)) {
      const ofMessage = (count - ((idle[index]![name] ?? 0) * ms) / idleMs) / messages;
      if (ofMessage >= callsOfMessage) calls[name] = (calls[name] ?? 0) + Math.round(ofMessage);
    }
  }
  return calls;
}

/** Calls for one message, by room. Calls in unlisted rooms count in the total only. @param of what the results are named behind */
function pathOf(calls: Calls, of = ""): Measured[] {
  const passed = Object.entries(calls).map(([name, count]) => {
    const file = name.slice(0, name.indexOf(" "));
    return { file, folder: file.startsWith("src/") ? file.split("/")[2]! : "generated", count };
  });
  const byFolder = [whole, ...folders].map((folder) => ({
    folder,
    functions: passed.filter((each) => folder === whole || each.folder === folder),
  }));
  return [
    ...byFolder.map(({ folder, functions }) =>
      measured(`files${of}`, folder, "files", [new Set(functions.map(({ file }) => file)).size]),
    ),
    ...byFolder.map(({ folder, functions }) => measured(`functions${of}`, folder, "functions", [functions.length])),
    ...byFolder.map(({ folder, functions }) =>
      measured(`calls${of}`, folder, "calls", [functions.reduce((sum, { count }) => sum + count, 0)]),
    ),
  ];
}

function costsMeasured(costs: ReadonlyMap<string, readonly Used[]>): Measured[] {
  const each = [...costs];
  return [
    ...each.map(([variant, used]) =>
      measured(
        "CPU",
        variant,
        "µs",
        used.map(({ cpuSeconds }) => cpuSeconds * 1e6),
      ),
    ),
    ...each.map(([variant, used]) =>
      measured(
        "garbage",
        variant,
        "B",
        used.map(({ garbageBytes }) => garbageBytes),
      ),
    ),
  ];
}

function measured(name: string, variant: string, unit: string, samples: readonly number[]): Measured {
  return { name, payloadBytes, variant, unit, better: "lower", samples, baselines: [] };
}
