/**
 * Everything that a run needs: the rows, a process that runs the bridge, and one that publishes.
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { install } from "../../src/store/index.js";
import { BenchFailure } from "../bench-failure.js";
import type { BenchServers } from "../bench-servers.js";
import type { SuiteContext } from "../suite.js";
import { Worker } from "../worker.js";
import type { Load, PublishingRequests } from "./publishing-process.js";
import type { ServeRequests, Usage } from "./serve-process.js";
import { TargetRows, type Transactions } from "./target-rows.js";

/** What a load of messages took. */
export interface Run {
  readonly seconds: number;
  readonly usage: Usage;
  readonly transactions: Transactions;
}

const markEveryMs = 20;
const patienceMs = 60_000;

/** See above. */
export class BridgeUnderTest {
  #marks = 0;

  readonly rows: TargetRows;
  readonly publishing: Worker<PublishingRequests>;
  readonly #serve: Worker<ServeRequests>;

  private constructor(rows: TargetRows, publishing: Worker<PublishingRequests>, serve: Worker<ServeRequests>) {
    this.rows = rows;
    this.publishing = publishing;
    this.#serve = serve;
  }

  /** Starts the processes; the subscriptions are live when this resolves. */
  static async start({ databaseUrl, natsUrl }: BenchServers, { signal }: SuiteContext): Promise<BridgeUnderTest> {
    await install({ databaseUrl });
    await defineServer(databaseUrl, natsUrl);
    const rows = await TargetRows.create(databaseUrl);
    const serve = Worker.start<ServeRequests>("serve", new URL("./serve-process.ts", import.meta.url), { signal });
    const publishing = Worker.start<PublishingRequests>(
      "publishing",
      new URL("./publishing-process.ts", import.meta.url),
      { signal },
    );
    const bridge = new BridgeUnderTest(rows, publishing, serve);
    try {
      await serve.request("open", databaseUrl);
      await publishing.request("open", { databaseUrl, natsUrl });
      await bridge.#marked();
      return bridge;
    } catch (error) {
      await bridge.stop();
      throw error;
    }
  }

  /** Publishes, and waits until all rows are committed: from the first publish to the last commit. */
  async run(load: Load): Promise<Run> {
    await this.rows.clear();
    await this.#serve.request("watch", undefined);
    const published = this.publishing.request("publish", load);
    const [beganMs, endedMs] = await Promise.all([published, this.rows.committed(load.messages)]);
    return await this.#ended(load, endedMs - beganMs);
  }

  /** All messages are received before any row can be inserted: from then to the last commit. */
  async runBacklog(load: Load): Promise<Run> {
    await this.rows.clear();
    await this.rows.hold();
    await this.publishing.request("publish", load);
    await this.#marked();
    await this.#serve.request("watch", undefined);
    const beganMs = await this.rows.release();
    return await this.#ended(load, (await this.rows.committed(load.messages)) - beganMs);
  }

  /** The baseline. @returns seconds */
  async insert(load: Load, connections: number): Promise<number> {
    await this.rows.clear();
    const [beganMs, endedMs] = await this.publishing.request("insert", { ...load, connections });
    await this.rows.check(load.messages, load.payloadBytes, connections === 1);
    return (endedMs - beganMs) / 1000;
  }

  async stop(): Promise<void> {
    await Promise.all([this.publishing.stop(), this.#serve.stop()]);
    await this.rows.close();
  }

  async #ended({ messages, payloadBytes }: Load, tookMs: number): Promise<Run> {
    const usage = await this.#serve.request("usage", undefined);
    const transactions = await this.rows.check(messages, payloadBytes, true);
    return { seconds: tookMs / 1000, usage, transactions };
  }

  /** Resolves when the bridge has received what was published until now. */
  async #marked(): Promise<void> {
    const giveUpAt = performance.now() + patienceMs;
    const name = `mark ${(this.#marks += 1)}`;
    // The first ones may come before the subscription is there.
    while (!(await this.rows.isMarked(name))) {
      if (performance.now() > giveUpAt) throw new BenchFailure(`the bridge has not received "${name}"`);
      await this.publishing.request("mark", name);
      await delay(markEveryMs);
    }
  }
}

async function defineServer(databaseUrl: string, natsUrl: string): Promise<void> {
  const { hostname, port } = new URL(natsUrl);
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    await client.query("SELECT hawser.set_nats_server($1)", [JSON.stringify({ host: hostname, port })]);
  } finally {
    await client.end();
  }
}
