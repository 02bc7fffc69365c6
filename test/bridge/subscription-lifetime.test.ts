/**
 * When a subscription begins and ends: with the transaction that makes it, and with its function.
 */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { serve as startServer } from "../../src/nats/serve/index.js";
import { optionsPollMs } from "../../src/operating/installation/foreign-data.js";
import { eventually } from "../support/eventually.js";
import { slowDescribe, slowIt } from "../support/slow-it.js";
import { noTimersAbove } from "../support/timers.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

const sql = `
  CREATE TABLE got (id bigserial, fn text, payload bytea);
  CREATE FUNCTION capture(payload bytea) RETURNS void LANGUAGE sql
    AS $$INSERT INTO got (fn, payload) SELECT 'capture', payload WHERE payload <> ''$$;
  CREATE FUNCTION other(payload bytea) RETURNS void LANGUAGE sql
    AS $$INSERT INTO got (fn, payload) SELECT 'other', payload WHERE payload <> ''$$;
`;

let world: BridgeWorld;
/** Of another database. */
let other: BridgeWorld;

beforeAll(async () => {
  [world, other] = await Promise.all([bridgeWorld({ sql }), bridgeWorld({ sql })]);
});
afterAll(async () => {
  await world?.[Symbol.asyncDispose]();
  await other?.[Symbol.asyncDispose]();
});

describe("a subscription", () => {
  it("has begun when litmus_pgnats_reload_conf() has returned", async () => {
    for (let nth = 0; nth < 5; nth++) {
      await world.client.query("SELECT nats_subscribe($1, 'capture')", [`${world.prefix}.${nth}`]);
      await world.client.query("SELECT litmus_pgnats_reload_conf()");
      expect(await world.hears(`${world.prefix}.${nth}`)).toBe(true);
    }
  });

  it("begins by the notification of its COMMIT, and ends by that of its unsubscribing", async () => {
    // No poll comes.
    noTimersAbove(optionsPollMs - 1);
    for (let n = 0; n < 5; n++) {
      const subject = `${world.prefix}.notified.${n}`;
      await world.client.query("SELECT nats_subscribe($1, 'capture')", [subject]);
      await eventually("it has begun", () => world.hears(subject));
      await world.client.query("SELECT nats_unsubscribe($1, 'capture')", [subject]);
      await eventually("it has ended", async () => !(await world.hears(subject)));
    }
  });

  it("begins with COMMIT, not before, and not at all after ROLLBACK", async () => {
    const subject = `${world.prefix}.commit`;
    const session = await world.connect();
    try {
      for (const end of ["ROLLBACK", "COMMIT"]) {
        await session.query("BEGIN");
        await session.query("SELECT nats_subscribe($1, 'capture')", [subject]);
        // A subscription that is committed later has begun: the first one would have, too, if it were committed.
        await world.subscribe(`${subject}.later.${end}`, "other(bytea)");
        expect(await world.hears(subject)).toBe(false);
        await session.query(end);
        await world.subscribe(`${subject}.after.${end}`, "other(bytea)");
        expect(await world.hears(subject)).toBe(end === "COMMIT");
      }
    } finally {
      await session.end();
    }
  });

  it("goes on for one function of a subject while the other's is ended", async () => {
    const subject = `${world.prefix}.both`;
    await world.subscribe(subject, "capture(bytea)");
    await world.subscribe(subject, "other(bytea)");
    await world.client.query("SELECT nats_unsubscribe($1, 'other')", [subject]);
    for (const word of ["a", "b", "c"]) world.nats.publish(subject, word);
    await world.counts(3, "SELECT count(*) FROM got WHERE fn = 'capture'");
    await world.client.query("SELECT nats_unsubscribe($1, 'capture')", [subject]);
    await eventually("nobody hears", async () => !(await world.hears(subject)));
  });
});

/** Drops functions in every way there is, which ends their subscriptions. */
async function dropFunctions(world: BridgeWorld): Promise<void> {
  const subjects = ["dropped", "again", "owned", "others"].map((word) => `${world.prefix}.${word}`);
  const [dropped, again, own, others] = subjects as [string, string, string, string];
  const user = await world.user();
  await world.client.query(`
    CREATE FUNCTION doomed(payload bytea) RETURNS void LANGUAGE sql AS '';
    CREATE FUNCTION again(payload bytea) RETURNS void LANGUAGE sql AS ''`);
  await user.client.query("CREATE FUNCTION mine(payload bytea) RETURNS void LANGUAGE sql AS ''");
  await user.client.query("SELECT nats_subscribe($1, 'mine'), nats_subscribe($2, 'capture')", [own, others]);
  await world.client.query("SELECT nats_subscribe($1, 'doomed'), nats_subscribe($2, 'again')", [dropped, again]);
  for (const subject of subjects) await world.live(subject);
  const refused = await world.errorOf("DROP FUNCTION doomed(bytea)");
  expect(refused.code).toBe("2BP01");
  expect(refused.detail).toContain(`public.doomed on ${dropped.slice(0, 10)}`);
  expect(await world.hears(dropped)).toBe(true);
  await world.client.query("DROP FUNCTION doomed(bytea) CASCADE");
  // A new function of the same name is not subscribed.
  await world.client.query(
    "BEGIN; DROP FUNCTION again(bytea) CASCADE; CREATE FUNCTION again(payload bytea) RETURNS void LANGUAGE sql AS $$INSERT INTO got (fn) VALUES ('again')$$; COMMIT",
  );
  // Of its role, or of that of the subscription.
  await world.client.query(`DROP OWNED BY ${user.role} CASCADE`);
  for (const subject of subjects) {
    await eventually(`nobody hears ${subject}`, async () => !(await world.hears(subject)));
    expect(
      await world.count(`SELECT count(*) FROM hawser_bridge_data.nats_handlers WHERE subject = '${subject}'`),
    ).toBe(0);
    expect(await world.count(`SELECT count(*) FROM pgnats.subscriptions WHERE subject = '${subject}'`)).toBe(0);
  }
  expect(await world.count("SELECT count(*) FROM got WHERE fn = 'again'")).toBe(0);
}

describe.concurrent("a DROP of the function is refused without CASCADE, and with it ends the subscription", () => {
  it("with event triggers", () => dropFunctions(world));

  slowIt("without event triggers", async () => {
    const triggers = await other.rows<{ name: string }>(
      "SELECT evtname AS name FROM pg_event_trigger WHERE evtname LIKE '%hawser%'",
    );
    expect(triggers.length).toBeGreaterThan(0);
    for (const { name } of triggers) await other.client.query(`DROP EVENT TRIGGER ${name}`);
    await dropFunctions(other);
  });
});

slowDescribe.concurrent("subscriptions", () => {
  it("are back after a restart of serve, while messages of the time between are not there", async () => {
    await using own = await bridgeWorld({ sql });
    const subject = `${own.prefix}.restart`;
    await own.subscribe(subject, "capture(bytea)");
    own.nats.publish(subject, "before");
    await own.counts(1, "SELECT count(*) FROM got");
    await own.serve.stop();
    expect(await own.hears(subject)).toBe(false);
    await using _again = await startServer({ databaseUrl: own.database.url, listen: "127.0.0.1:0" });
    await own.live(subject);
    own.nats.publish(subject, "after");
    await own.counts(2, "SELECT count(*) FROM got");
  });

  it("that were made before any NATS server was defined begin with it", async () => {
    await using own = await bridgeWorld({ sql, serverOptions: false });
    const subject = `${own.prefix}.early`;
    await own.client.query("SELECT nats_subscribe($1, 'capture')", [subject]);
    const { hostname, port } = new URL(process.env["HAWSER_TEST_NATS_URL"]!);
    for (let round = 0; round < 2; round++) {
      await own.client.query(
        `CREATE SERVER nats_fdw_server FOREIGN DATA WRAPPER litmus_pgnats_fdw OPTIONS (host '${hostname}', port '${port}')`,
      );
      await eventually("it has begun", () => own.hears(subject));
      await own.client.query("DROP SERVER nats_fdw_server");
      await eventually("it has ended", async () => !(await own.hears(subject)));
    }
  });

  it("of two databases of one server and one NATS are each its own", async () => {
    const subject = `${world.prefix}.shared`;
    await world.subscribe(subject, "capture(bytea)");
    await other.client.query("SELECT nats_subscribe($1, 'capture')", [subject]);
    const probe = "SELECT count(*) FROM got WHERE payload = 'both'";
    await eventually("both run", async () => {
      world.nats.publish(subject, "both");
      await world.nats.flush();
      return (await world.count(probe)) > 0 && Number(await other.value(probe)) > 0;
    });
    await world.client.query("SELECT nats_unsubscribe($1, 'capture')", [subject]);
    await world.client.query("TRUNCATE got");
    await other.client.query("TRUNCATE got");
    world.nats.publish(subject, "other");
    await eventually("the other goes on", async () => {
      return Number(await other.value("SELECT count(*) FROM got WHERE payload = 'other'")) === 1;
    });
    expect(await world.count("SELECT count(*) FROM got WHERE payload = 'other'")).toBe(0);
  });
});
