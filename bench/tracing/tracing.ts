/**
 * The suite `tracing`: the CPU that a message, a job and a call cost without tracing, and with it.
 */
import { type BenchServers, withServers } from "../servers.js";
import type { Measured, Suite, SuiteContext, SuiteOutcome, SuitePage } from "../suite.js";
import { Worker } from "../worker.js";
import type { TracedWork, TracingMode, TracingRequests } from "./process.js";

const payloadBytes = 100;
const modes: readonly TracingMode[] = ["absent", "off", "sdk", "on", "every"];
const works: readonly { readonly kind: TracedWork; readonly amount: number; readonly quick: number }[] = [
  { kind: "live", amount: 100_000, quick: 100 },
  { kind: "transactional", amount: 2_000, quick: 20 },
  { kind: "rpc", amount: 20_000, quick: 50 },
];
const rounds = { full: 7, quick: 1 };
/** Rounds that warm up: V8 compiles what only a part of the messages passes later than the rest. */
const warmUps = { full: 4, quick: 1 };

const page: SuitePage = {
  title: "Tracing",
  text: `The CPU of both processes together for one live message at least once (\`live\`), for one job that is enqueued and handled in a
transaction (\`transactional\`), and for one RPC call with 64 in flight (\`rpc\`). Each way has processes of its own, which take turns.

- \`absent\`: no tracing.
- **off**: \`instrument()\` of \`hawser/otel\`, without an SDK.
- \`sdk\`: an SDK whose context is in use, as other instrumentations need it, without \`hawser/otel\`. Before version 24, Node.js calls
  a hook for every promise then.
- **on**: the SDK records every span, and its exporter does nothing. One of a thousand live messages and calls begins a trace, which is the
  default, and every job has a span.
- **every**: the same, with a trace for every live message and call.`,
  charts: [{ title: "CPU with tracing", results: works.map(({ kind }) => `${kind}, on`), scale: "logarithmic" }],
};

/** The suite. */
export const tracing: Suite = {
  name: "tracing",
  summary: "CPU for a message, a job and a call without tracing, and with it off, sampled and for all",
  seconds: 120,
  page,
  targets: works.flatMap(({ kind }) => [
    { name: `${kind}, off`, payloadBytes, baseline: "absent", atLeast: 0.97 },
    { name: `${kind}, on`, payloadBytes, baseline: "sdk", atLeast: 0.9 },
  ]),
  run: (context) => withServers(context, (servers) => measure(context, servers)),
};

type Pair = Readonly<Record<"sending" | "handling", Worker<TracingRequests>>>;

async function measure(context: SuiteContext, { databaseUrl }: BenchServers): Promise<Omit<SuiteOutcome, "servers">> {
  const { say, signal, quick, source } = context;
  say("Starting two processes for each way");
  const program = new URL("./process.ts", import.meta.url);
  const pairs = new Map<TracingMode, Pair>();
  try {
    for (const mode of modes) {
      const start = (name: string) => Worker.start<TracingRequests>(`${name} (${mode})`, program, { source });
      const pair = { sending: start("sending"), handling: start("handling") };
      pairs.set(mode, pair);
      await pair.handling.request("handle", { databaseUrl, mode });
      await pair.sending.request("connect", { databaseUrl, mode });
    }
    const results: Measured[] = [];
    for (const work of works) {
      say(`Measuring ${work.kind}`);
      const amount = quick ? work.quick : work.amount;
      for (const mode of modes) {
        for (let left = quick ? warmUps.quick : warmUps.full; left > 0; left--) {
          await costOf(pairs.get(mode)!, work.kind, mode, amount);
        }
      }
      const samples = new Map<TracingMode, number[]>(modes.map((mode) => [mode, []]));
      for (let round = 0; round < (quick ? rounds.quick : context.rounds(rounds.full)); round++) {
        // Another order in each round, so that no way always comes behind the same one.
        const order = modes.map((_, nth) => modes[(nth + round) % modes.length]!);
        for (const mode of round % 2 === 0 ? order : order.reverse()) {
          signal.throwIfAborted();
          samples.get(mode)!.push(await costOf(pairs.get(mode)!, work.kind, mode, amount));
        }
      }
      for (const mode of modes.slice(1)) {
        results.push({
          name: `${work.kind}, ${mode}`,
          payloadBytes,
          unit: "µs",
          better: "lower",
          samples: samples.get(mode)!,
          baselines: (["absent", "sdk"] as const)
            .filter((baseline) => baseline !== mode)
            .map((baseline) => ({ name: baseline, samples: samples.get(baseline)! })),
        });
      }
    }
    return { results, notes: [] };
  } finally {
    for (const { sending, handling } of pairs.values()) {
      await sending.stop();
      await handling.stop();
    }
  }
}

/** Does the work. @returns CPU of both processes for one message, job or call, in µs */
async function costOf(
  { sending, handling }: Pair,
  kind: TracedWork,
  mode: TracingMode,
  amount: number,
): Promise<number> {
  await Promise.all([sending.request("watch", undefined), handling.request("watch", undefined)]);
  await sending.request("work", { kind, mode, amount });
  if (kind === "transactional") await handling.request("jobsHandled", amount);
  const [one, other] = await Promise.all([sending.request("used", undefined), handling.request("used", undefined)]);
  return ((one + other) / amount) * 1e6;
}
