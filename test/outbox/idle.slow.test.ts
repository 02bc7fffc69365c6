/** Processes that have nothing to do leave Postgres alone. */
import { setTimeout as delay } from "node:timers/promises";
import { it } from "vitest";
import { Peer } from "../../src/peer/index.js";
import { ServeGroup } from "../faults/support/serve-group.js";
import { sqlDatabase } from "../faults/support/sql-database.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";

const seconds = 5;
/** Limit for `serve` and a peer together: heartbeats, and few polls. */
const mostPerSecond = 8;

it("serve and a peer make few transactions while nothing happens", { timeout: 120_000 }, async () => {
  await using database = await sqlDatabase(testNatsUrl());
  await using group = await ServeGroup.start(database.url, 1);
  await group.leader();
  await using peer = new Peer({
    databaseUrl: database.url,
    name: "idle",
    topic: "idle",
    listen: "127.0.0.1:0",
    defaults: { group: true },
  });
  await peer.handle(peer.topic, () => undefined);
  await peer.start();
  /** Transactions until now, and the time in seconds, both by Postgres. */
  const counted = async () => {
    const sql =
      "SELECT (xact_commit + xact_rollback)::float8 AS n, extract(epoch FROM clock_timestamp())::float8 AS at FROM pg_stat_database WHERE datname = current_database()";
    const [row] = await rowsOf(database.url, sql);
    return row as { n: number; at: number };
  };
  // Of a start nothing is left after a while; what goes on without a pause never becomes less.
  await eventually("few transactions are made", async () => {
    const from = await counted();
    await delay(seconds * 1_000);
    const to = await counted();
    return (to.n - from.n) / (to.at - from.at) < mostPerSecond;
  });
});
