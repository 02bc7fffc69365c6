/** Processes that have nothing to do leave Postgres alone. */
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { Peer } from "../../src/peer/index.js";
import { ServeGroup } from "../faults/support/bridge-group.js";
import { sqlDatabase } from "../faults/support/sql-database.js";
import { testNatsUrl } from "../support/database.js";
import { rowsOf } from "../support/on-server.js";

const seconds = 5;
/** Of `serve` and a peer together: heartbeats, and looks once a second. */
const mostPerSecond = 40;

it("serve and a peer make few transactions while nothing happens", { timeout: 120_000 }, async () => {
  await using database = await sqlDatabase(testNatsUrl());
  await using group = await ServeGroup.start(database.url, 1);
  await group.leader();
  await using peer = new Peer({ databaseUrl: database.url, name: "idle", topic: "idle", listen: "127.0.0.1:0" });
  await peer.run(() => undefined);
  const transactions = async (): Promise<number> => {
    const [row] = await rowsOf(
      database.url,
      "SELECT (xact_commit + xact_rollback)::integer AS n FROM pg_stat_database WHERE datname = current_database()",
    );
    return Number(row!["n"]);
  };
  await delay(outboxConstants.awakeMs + 2_000);
  const before = await transactions();
  await delay(seconds * 1_000);
  expect(((await transactions()) - before) / seconds).toBeLessThan(mostPerSecond);
});
