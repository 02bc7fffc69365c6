/**
 * The suite `backlog`: whether a listener drains as fast when very much waits for it.
 */
import { type BenchServers, withServers } from "../bench-servers.js";
import { orderOf } from "../side-by-side.js";
import type { Suite, SuiteContext, SuiteOutcome, SuitePage } from "../suite.js";
import { Worker } from "../worker.js";
import type { DrainingRequests, DrainingWay } from "./draining-process.js";
import { StoredRows } from "./stored-rows.js";

const payloadBytes = 100;
const full = { sizes: [10_000, 100_000, 1_000_000], rounds: 3 };
const quick = { sizes: [200, 2_000], rounds: 1 };
const ways: readonly DrainingWay[] = ["hawser", "sql"];
const listener = { name: "bench-listener-1", topic: "bench-listener" };

const page: SuitePage = {
  title: "A great backlog",
  text: `So many messages of 100 bytes are in the store, of one sender; then the listener starts. The time is from its start
until all are handled, by a handler that does nothing, their rows deleted, and that is committed.

- \`sql\` is what one would write by hand: one connection that reads 1,024 rows in their order, handles them, and deletes
  them in a second statement, over and over. It needs neither a lease nor a check who may delete.`,
  charts: [{ title: "Draining a backlog", results: ["drain"] }],
};

/** The suite. */
export const backlog: Suite = {
  name: "backlog",
  summary: "messages/s drained with 10,000 to 1,000,000 waiting, beside a loop of two SQL statements",
  seconds: 120,
  page,
  targets: [],
  run: (context) => withServers(context, (servers) => measure(context, servers)),
};

async function measure(context: SuiteContext, servers: BenchServers): Promise<Omit<SuiteOutcome, "servers">> {
  const { sizes, rounds } = context.quick ? quick : full;
  const { databaseUrl } = servers;
  const stored = await StoredRows.open(databaseUrl, listener);
  const program = new URL("./draining-process.ts", import.meta.url);
  const draining = Worker.start<DrainingRequests>("draining", program, { signal: context.signal });
  try {
    await draining.request("open", databaseUrl);
    const rate = async (way: DrainingWay, rows: number): Promise<number> => {
      context.signal.throwIfAborted();
      await (way === "hawser" ? stored.addForListener(rows, payloadBytes) : stored.addForLoop(rows, payloadBytes));
      return rows / (await draining.request("drain", { way, rows }));
    };
    for (const way of ways) await rate(way, sizes[0]!);
    const rates = new Map(sizes.map((rows) => [rows, { hawser: [] as number[], sql: [] as number[] }]));
    for (let round = 0; round < rounds; round++) {
      for (const rows of orderOf(sizes, round)) {
        context.say(`Measuring ${rows.toLocaleString("en-US")} messages, round ${round + 1} of ${rounds}`);
        for (const way of orderOf(ways, round)) rates.get(rows)![way].push(await rate(way, rows));
      }
    }
    const results = sizes.map((rows) => ({
      name: "drain",
      payloadBytes,
      variant: `${rows.toLocaleString("en-US")} messages`,
      unit: "messages/s",
      better: "higher" as const,
      samples: rates.get(rows)!.hawser,
      baselines: [{ name: "sql", samples: rates.get(rows)!.sql }],
    }));
    return { results, notes: [] };
  } finally {
    await draining.stop();
    await stored.close();
  }
}
