/**
 * A Postgres that is there and takes no writes. For the listener that is away everything must be stored: such sends end as
 * unknown after their time, and what was sent arrives all the same.
 */
import { expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { onServer } from "../support/on-server.js";
import { patienceMs } from "./support/kills.js";
import { problems } from "./support/ledger.js";
import { auditMesh } from "./support/mesh-audit.js";
import { Mesh, recoveryLimitMs } from "./support/mesh.js";
import { microseconds } from "./support/mesh-protocol.js";
import { ownPostgres } from "./support/own-postgres.js";

const sendTimeoutMs = 2_000;

const refusals = {
  "it was made read-only": {
    begin: ["ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"],
    end: ["ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()"],
  },
  "a trigger raises": {
    begin: [
      `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$`,
      "CREATE TRIGGER refuse BEFORE INSERT ON hawser_data.stored_messages FOR EACH ROW EXECUTE FUNCTION refuse()",
    ],
    end: ["DROP TRIGGER refuse ON hawser_data.stored_messages"],
  },
};

it("a Postgres that refuses writes, as read-only or by a trigger, confirms nothing that is lost", {
  timeout: patienceMs,
}, async () => {
  await using postgres = await ownPostgres();
  await using mesh = await Mesh.start({ url: postgres.url, peer: { sendTimeoutMs }, perSecond: 50 });
  const [x, y] = [mesh.member("x"), mesh.member("y")];
  const [a] = mesh.senders as [(typeof mesh.senders)[0]];
  // A listener is down, so that all its messages must be stored.
  await mesh.current(x).crash();
  await eventually("it is stored", () => mesh.confirmed(a, x).some(({ outcome }) => outcome === "stored"));
  for (const [why, { begin, end }] of Object.entries(refusals)) {
    await onServer(postgres.url, ...begin);
    const begun = microseconds();
    const rejected = () =>
      mesh.senders.map((each) => {
        const { rejected: all } = mesh.current(each).journal.refresh();
        return all.filter(({ topic, sentAt }) => topic === "x" && sentAt > begun);
      });
    await eventually("sends of every sender are rejected", () => rejected().every(({ length }) => length >= 50));
    for (const { failure, at, sentAt } of rejected().flat()) {
      expect(failure, why).toMatchObject({ code: "store_failed", outcome: "unknown" });
      const waitedMs = (at - sentAt) / 1_000;
      expect(waitedMs).toBeGreaterThan(sendTimeoutMs - 50);
    }
    for (const each of mesh.senders) {
      // Messages in flight when the refusal began may have been committed just before.
      const [first] = mesh.statuses(each, "sender_store_error", begun).filter(({ status }) => status.peer === "x");
      expect(first, why).toBeDefined();
      expect(mesh.confirmed(each, x).filter(({ sentAt }) => sentAt > first!.at)).toEqual([]);
    }
    await onServer(postgres.url, ...end);
    const ended = microseconds();
    await eventually(
      "sends to the absent listener are stored again",
      () => mesh.senders.every((each) => mesh.confirmed(each, x).some(({ sentAt }) => sentAt > ended)),
      recoveryLimitMs,
    );
    const others = mesh.channels.filter(({ listener }) => listener === y);
    console.log(`refused because ${why}: back after ${(await mesh.recovered(ended, others)).toFixed(0)} ms`);
  }
  await mesh.launch(x);
  await mesh.recovered(microseconds());
  await mesh.settle();
  const found = auditMesh(mesh);
  console.log(found.summary);
  expect(problems(found.findings)).toEqual([]);
});
