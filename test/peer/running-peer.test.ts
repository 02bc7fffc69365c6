import { expect, it } from "vitest";
import { PeerCounters } from "../../src/peer/counters.js";
import { checkOptions } from "../../src/peer/options.js";
import { RunningPeer } from "../../src/peer/running-peer.js";
import { StatusReporter } from "../../src/peer/status.js";
import { TopicHandlers } from "../../src/peer/topic-handlers.js";
import { silentLogger } from "../../src/runtime/index.js";
import type { HeldLease } from "../../src/store/leases.js";
import { startProxy } from "../store/support/proxy.js";
import { eventually } from "../support/eventually.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

it("that stops while it begins again on another database server does not go on with that", async () => {
  await using proxy = await startProxy(world.url);
  const told: string[] = [];
  const logger = { ...silentLogger, debug: (_details: unknown, text?: string) => void told.push(String(text)) };
  const options = checkOptions({ name: "a-1", topic: "a", databaseUrl: proxy.url });
  const running = await RunningPeer.start(
    {
      options,
      logger,
      status: new StatusReporter(),
      counters: new PeerCounters(),
      unsubscribed: new Set(),
      handlers: new TopicHandlers({ name: "a-1", topic: "a" }, options.handling, () =>
        Promise.reject(new Error("no replies")),
      ),
      onLost: () => undefined,
    },
    new AbortController().signal,
  );
  proxy.freeze();
  const { lease, store } = running;
  (lease as HeldLease).renew({ epoch: lease.epoch + 1, server: "another" });
  await running.stop(0);
  proxy.cut();
  await store.close();
  await eventually("its sessions have ended", async () => {
    const [row] = await world.query<{ count: number }>(
      "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    return row?.count === 0;
  });
  expect(told.filter((text) => text.includes("could not continue with another database server"))).toEqual([]);
});
