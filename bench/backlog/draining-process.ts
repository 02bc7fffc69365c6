/**
 * The program of a process that drains a backlog: a peer, or two statements in a loop.
 */
import pg from "pg";
import { Peer } from "../../src/peer/index.js";
import { cursorReaches } from "../committed-cursor.js";
import { serveRequests } from "../serve-requests.js";

/** What drains. */
export type DrainingWay = "hawser" | "sql";

/** Rows of a page of the loop, as many as our own drain takes at a time. */
const pageRows = 1024;

let databaseUrl = "";
let client: pg.Client | undefined;
let handled = 0;

const requests = {
  /** Connects. */
  async open(url: string): Promise<void> {
    databaseUrl = url;
    client = new pg.Client({ connectionString: url });
    await client.connect();
  },
  /** Handles so many messages, until that is committed. @returns seconds */
  drain: ({ way, rows }: { way: DrainingWay; rows: number }): Promise<number> =>
    way === "hawser" ? drainByPeer(rows) : drainBySql(rows),
};

/** What the draining process can be asked. */
export type DrainingRequests = typeof requests;

/** The sender has one epoch, so that its numbers go on from one load to the next. */
async function drainByPeer(rows: number): Promise<number> {
  const through = handled + rows;
  let complete = (): void => undefined;
  const all = new Promise<void>((resolve) => {
    complete = resolve;
  });
  const began = performance.now();
  const peer = new Peer({ name: "bench-listener-1", topic: "bench-listener", listen: "127.0.0.1:0", databaseUrl });
  await peer.run(() => {
    handled += 1;
    if (handled === through) complete();
  });
  await all;
  await cursorReaches(client!, through);
  const seconds = (performance.now() - began) / 1000;
  await peer.stop();
  return seconds;
}

async function drainBySql(rows: number): Promise<number> {
  const began = performance.now();
  for (let left = rows; left > 0; ) {
    const { rows: page } = await client!.query<{ id: string; payload: Buffer }>({
      name: "bench.page",
      text: `SELECT id, payload FROM bench_backlog ORDER BY id LIMIT ${pageRows}`,
    });
    left -= page.length;
    const last = page.at(-1)!.id;
    await client!.query({ name: "bench.delete", text: "DELETE FROM bench_backlog WHERE id <= $1", values: [last] });
  }
  return (performance.now() - began) / 1000;
}

serveRequests(requests, async () => await client?.end());
