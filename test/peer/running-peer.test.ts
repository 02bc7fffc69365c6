import { expect, it } from "vitest";
import { silentLogger } from "../../src/foundation/runtime/index.js";
import { StatusReporter } from "../../src/jobs-and-peers/handlers/status.js";
import { TopicHandlers } from "../../src/jobs-and-peers/handlers/topic-handlers.js";
import { type CheckedOptions, checkOptions } from "../../src/jobs-and-peers/peer/core/peer-options.js";
import { RunningPeer, type RunOptions } from "../../src/jobs-and-peers/peer/running-peer.js";
import type { HeldLease } from "../../src/jobs-and-peers/store/leases.js";
import { PeerCounters } from "../../src/jobs-and-peers/worker/counters.js";
import { startProxy } from "../store/support/proxy.js";
import { CertificateAuthority } from "../support/certificate-authority.js";
import { eventually } from "../support/eventually.js";
import { failure } from "./support/errors.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld({ keepsConnections: false });

/** Options of a run that handles nothing. */
function runOf(options: CheckedOptions): RunOptions {
  return {
    options,
    logger: silentLogger,
    status: new StatusReporter(),
    counters: new PeerCounters(),
    unsubscribed: new Set(),
    handlers: new TopicHandlers({ name: "a-1", topic: "a" }, options.handling, () =>
      Promise.reject(new Error("no replies")),
    ),
    onLost: () => undefined,
  };
}

it("a peer that stops while it moves to another database server does not finish the move", async () => {
  await using proxy = await startProxy(world.url);
  const told: string[] = [];
  const logger = { ...silentLogger, debug: (_details: unknown, text?: string) => void told.push(String(text)) };
  const options = checkOptions({ name: "a-1", topic: "a", databaseUrl: proxy.url });
  const running = await RunningPeer.start({ ...runOf(options), logger }, new AbortController().signal);
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

it("a peer with tls refuses to start on Deno, before it connects to anything", async () => {
  const authority = new CertificateAuthority();
  const tls = { ...authority.issue(["localhost"]), ca: authority.certificate };
  const nowhere = "postgres://nobody@127.0.0.1:1/none";
  const run = { ...runOf(checkOptions({ name: "a-1", databaseUrl: nowhere, tls })), runtime: "deno" };
  await failure("tls_unsupported", RunningPeer.start(run, new AbortController().signal));
});
