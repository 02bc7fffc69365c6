/**
 * A login without any right holds each advisory lock that a version of Hawser has taken, while peers, the relays and three
 * `hawser serve` run; the leader and a listener stand still meanwhile until others have taken over, and wake again.
 */
import { connect } from "@nats-io/transport-node";
import { expect, it } from "vitest";
import { TestPeer } from "../peer/support/world.js";
import { testNatsUrl } from "../support/database.js";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { LockHolder } from "../support/lock-holder.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { patienceMs } from "./support/kills.js";
import { problems } from "./support/ledger.js";
import { Mesh, recoveryLimitMs } from "./support/mesh.js";
import { auditMesh } from "./support/mesh-audit.js";
import { microseconds } from "./support/mesh-protocol.js";
import { sqlDatabase } from "./support/sql-database.js";
import { Subscriptions } from "./support/subscriptions.js";

const rounds = atDepth(2);
const names = ["a", "b", "x", "y", "serve", "new-1", "__#outbox"];
const handlers = ["responder", "responder:new.", "responder:new.answer", "subscription:new.subject", "stream:new"];

it("a login without any right that holds every advisory lock stops nobody, and lets no former owner write", {
  timeout: (1 + rounds) * patienceMs,
}, async () => {
  await using database = await sqlDatabase(testNatsUrl());
  const { url } = database;
  await using holder = await LockHolder.take(url, names, handlers);
  await using run = await Subscriptions.start({ databaseUrl: url, perSecond: 200 });
  const { ledger, group, publisher } = run;
  await using mesh = await Mesh.start({ url, perSecond: 50 });
  const x = mesh.member("x");
  const stalled = new Map<number, number>();
  const nats = await connect({ servers: testNatsUrl() });
  const relayed: string[] = [];
  const subject = `locks.${Date.now()}`;
  nats.subscribe(subject, { callback: (_, message) => void relayed.push(message.string()) });
  for (let round = 1; round <= rounds; round++) {
    // The leader stands still until another leads, and wakes.
    const leader = await group.leader();
    const epoch = await ledger.epoch();
    const stoppedAt = Date.now();
    leader.signal("SIGSTOP");
    await ledger.goesOn(stoppedAt, epoch);
    leader.signal("SIGCONT");
    // So does a listener, whose name another process has taken.
    const old = mesh.current(x);
    await old.call("slowDown", 5);
    old.kill("SIGSTOP");
    stalled.set(old.pid, microseconds());
    const ended = await rowsOf(url, "SELECT pg_terminate_backend(pid) FROM hawser_data.owners WHERE what = 'peer:x'");
    expect(ended).toHaveLength(1);
    await mesh.launch(x);
    await mesh.progress(x, 20);
    const resumed = microseconds();
    old.kill("SIGCONT");
    await eventually(
      "it ends with name_lost",
      () => old.journal.refresh().statuses.some(({ status }) => status.kind === "name_lost"),
      recoveryLimitMs,
    );
    // At most what it had received already.
    expect(old.journal.refresh().begun.filter(({ at }) => at > resumed).length).toBeLessThan(64);
    // A new peer registers, and has what is enqueued for it; so has NATS.
    await using fresh = new TestPeer({ name: "new-1", topic: "new", listen: "127.0.0.1:0", databaseUrl: url });
    await fresh.record();
    const text = `round ${round}`;
    await onServer(
      url,
      `SELECT hawser.enqueue('new', '${text}')`,
      `SELECT hawser.enqueue('${subject}', '${text}', stream => false)`,
    );
    await eventually(
      "the relays bring it",
      () => fresh.texts.includes(text) && relayed.includes(text),
      recoveryLimitMs,
    );
  }
  const calls = await run.finish();
  await mesh.settle();
  const held = await holder.heldMs();
  await nats.close();
  const found = auditMesh(mesh, stalled);
  console.log(
    `${holder.count} locks held for ${(held / 1_000).toFixed(0)} s, ${rounds} rounds, ${publisher.last} messages to ` +
      `subscriptions: ${calls.summary}; ${found.summary}`,
  );
  expect(problems(calls.findings)).toEqual([]);
  expect(problems(found.findings)).toEqual([]);
  expect(calls.epochs).toBeGreaterThan(rounds);
});
