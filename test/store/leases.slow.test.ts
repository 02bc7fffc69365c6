import { expect, it } from "vitest";
import { startDevStack } from "../../src/development/dev/index.js";
import { migrate } from "../../src/jobs-and-peers/migrations/index.js";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import { onServer } from "../support/on-server.js";
import { startProxy } from "./support/proxy.js";
import { world } from "./support/world.js";

it("a lease is taken anew, under a greater epoch, when another server answers that may have lost commits", async () => {
  await using w = await world();
  await using proxied = await startProxy(w.url);
  await using store = await openStore({ databaseUrl: proxied.url });
  const lease = await store.takeName("one", { waitMs: 0 });
  const { epoch } = lease;
  const told: unknown[] = [];
  lease.onRenewed((renewed) => told.push(["renewed", renewed > epoch, lease.state]));
  lease.onChange((state) => told.push(state));

  // The same database on another server, as a promoted standby has it.
  await using standby = await startDevStack({ nats: false });
  const there = new URL(standby.databaseUrl);
  const { pathname, password } = new URL(w.url);
  await onServer(
    there.href,
    `CREATE DATABASE ${pathname.slice(1)}`,
    `ALTER ROLE ${there.username} PASSWORD '${decodeURIComponent(password)}'`,
  );
  there.pathname = pathname;
  there.password = password;
  await migrate({ databaseUrl: there.href });
  await onServer(
    there.href,
    `INSERT INTO hawser_peer_data.peers (name, epoch) VALUES ('one', ${epoch})`,
    `INSERT INTO hawser_data.owners (what, epoch) VALUES ('peer:one', ${epoch})`,
  );
  const up = new Promise<void>((resolve) => {
    store.on("session", (state) => state === "up" && resolve());
  });
  proxied.leadTo(there.href);
  proxied.cut();
  await up;
  expect(told).toEqual(["suspended", ["renewed", true, "suspended"], "held"]);
  expect(lease.epoch).toBeGreaterThan(epoch);
  expect(await store.peerEpoch("one")).toBe(lease.epoch);
  expect(lease.isWritable).toBe(true);
});
