/**
 * The suite `liner`: the workload of the benchmark that comes with liner, a broker without a server that is written in
 * Rust, whose tables and calls Hawser's peers know.
 */
import { createBenchDatabase } from "../bench-database.js";
import { type BenchServers, dropDatabase, withServers } from "../bench-servers.js";
import { ProcessPair } from "../peer-live/process-pair.js";
import { orderOf } from "../side-by-side.js";
import type { Suite, SuiteContext, SuiteOutcome, SuitePage } from "../suite.js";
import { Worker } from "../worker.js";
import type { BothRequests } from "./both-process.js";
import { NativeLiner, programVariable } from "./native-liner.js";

const payloadBytes = 1024;
const full = { messages: 10_000, blocks: 10, cyclesOfBlock: 10, warmUp: 10 };
const quick = { messages: 100, blocks: 1, cyclesOfBlock: 2, warmUp: 1 };

/** What liner's readme says that a cycle takes, in ms, on its author's machine. */
const publishedMs = 10;

const page: SuitePage = {
  title: "liner's own workload",
  text: `10,000 messages of 1 KiB, at most once, in one go: a cycle. The time is from the first send until the last message
has been handled. 100 cycles, with sender and receiver in one process, as liner's own benchmark has them, and in two.

- \`liner, published\` is the figure of liner's readme, about 10 ms, from its author's machine.
- \`liner\`, if it is there, is liner 1.4.1 itself (Rust, both clients in one process, on the same Postgres), run in turn
  with ours on this machine. It is built and named like this:

  \`\`\`sh
  cargo build --release --manifest-path bench/liner/native/Cargo.toml --target-dir ../liner-build
  ${programVariable}=../liner-build/release/liner-cycles npm run bench -- liner
  \`\`\``,
  charts: [{ title: "10,000 × 1 KiB, at most once", results: ["cycle"] }],
};

const oneProcess = "one process";
const twoProcesses = "two processes";

/** The suite. */
export const liner: Suite = {
  name: "liner",
  summary: "ms for 10,000 messages of 1 KiB, beside what liner publishes, and liner itself where it is built",
  seconds: 20,
  page,
  targets: [oneProcess, twoProcesses].map((variant) => ({ name: "cycle", payloadBytes, variant, atMost: 7 })),
  run: (context) => withServers(context, (servers) => measure(context, servers)),
};

async function measure(context: SuiteContext, servers: BenchServers): Promise<Omit<SuiteOutcome, "servers">> {
  const { messages, blocks, cyclesOfBlock, warmUp } = context.quick ? quick : full;
  const program = process.env[programVariable];
  context.say("Starting the processes");
  // The peers have the same names as those of the pair.
  const database = await createBenchDatabase(servers.databaseUrl);
  const both = Worker.start<BothRequests>("only", new URL("./both-process.ts", import.meta.url));
  let pair: ProcessPair | undefined;
  let native: NativeLiner | undefined;
  try {
    await both.request("open", { ...servers, databaseUrl: database.url });
    const started = (pair = await ProcessPair.start(servers, ["at-most-once"]));
    if (program) native = NativeLiner.start(program, servers.databaseUrl, messages, payloadBytes);
    const times = new Map<string, number[]>();
    const ways: { readonly name: string; cycle(): Promise<number> }[] = [
      { name: oneProcess, cycle: () => both.request("cycle", { payloadBytes, messages }) },
      {
        name: twoProcesses,
        cycle: async () => (await started.send({ way: "at-most-once", payloadBytes, messages })).seconds * 1000,
      },
      ...(native === undefined ? [] : [{ name: "liner", cycle: () => native!.cycle() }]),
    ];
    context.say("Measuring");
    for (const { name, cycle } of ways) {
      times.set(name, []);
      for (let i = 0; i < warmUp; i++) await cycle();
    }
    for (let block = 0; block < blocks; block++) {
      for (const { name, cycle } of orderOf(ways, block)) {
        context.signal.throwIfAborted();
        for (let i = 0; i < cyclesOfBlock; i++) times.get(name)!.push(await cycle());
      }
    }
    const baselines = [
      { name: "liner, published", samples: [publishedMs] },
      ...(native === undefined ? [] : [{ name: "liner", samples: times.get("liner")! }]),
    ];
    const results = [oneProcess, twoProcesses].map((variant) => ({
      name: "cycle",
      payloadBytes,
      variant,
      unit: "ms",
      better: "lower" as const,
      samples: times.get(variant)!,
      baselines,
    }));
    return { results, notes: native === undefined ? [`liner was not built: see ${programVariable}`] : [] };
  } finally {
    await native?.stop();
    await pair?.stop();
    await both.stop();
    await dropDatabase(database, context);
  }
}
