/** Processes that have nothing to do leave Postgres alone. */
import { expect, it } from "vitest";
import { Worker } from "../../src/jobs-and-peers/peer/index.js";
import { serve } from "../../src/nats/serve/index.js";
import { sqlDatabase } from "../faults/support/sql-database.js";
import { peerWorld } from "../peer/support/world.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { StatementMinutes } from "../support/statement-minutes.js";

/** Of a start nothing is left after some minutes, and no transaction of another test is open that was before. */
async function comesDownTo(most: number, minutes: StatementMinutes): Promise<void> {
  const counts: number[] = [];
  await eventually(
    `a minute has ${most} statements`,
    async () => counts.push(await minutes.next()) > 1 && counts.at(-1)! <= most,
  ).catch((error) => expect.fail(`${error}: ${counts}`));
}

it("a peer without handlers runs 24 statements a minute: a heartbeat and a look for what is due every 5 seconds", async () => {
  await using world = await peerWorld();
  using minutes = new StatementMinutes();
  await world.peer("idle-1").start();
  await comesDownTo(24, minutes);
});

it("a peer with a handler runs 52: it also beats as a worker of the queue, and looks for stored messages", async () => {
  await using world = await peerWorld();
  using minutes = new StatementMinutes();
  await world.started("idle-1");
  await comesDownTo(52, minutes);
});

it("a worker that has nothing runs 4 statements a minute: it says that it goes on, and looks for what is due, on a connection that is new each time", async () => {
  await using world = await peerWorld();
  using minutes = new StatementMinutes();
  await using worker = new Worker({ databaseUrl: world.url });
  await worker.handle("t", () => undefined);
  await worker.start();
  await comesDownTo(4, minutes);
});

it("serve that leads runs 124 statements a minute, half of which are heartbeats", async () => {
  await using database = await sqlDatabase(testNatsUrl());
  const made = new StatementMinutes();
  await using _serve = await serve({ databaseUrl: database.url, listen: "127.0.0.1:0" });
  using minutes = made;
  await eventually("it leads", async () => {
    return (
      (await rowsOf(database.url, "SELECT FROM hawser.bridge_lead WHERE owner IS NOT NULL AND beat > 0")).length > 0
    );
  });
  await comesDownTo(124, minutes);
});
