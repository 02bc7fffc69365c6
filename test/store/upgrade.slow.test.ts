/**
 * A database of the last release that is in use is brought up to date in place: what is in it stays, and works.
 */
import { createHash } from "node:crypto";
import { nuid } from "@nats-io/transport-node";
import pg from "pg";
import { describe, expect, it } from "vitest";
import { errorTable } from "../../generated/ts/errors/errors.js";
import { releasedMigrations } from "../../generated/ts/sql/migrations.js";
import { install } from "../../src/installation/index.js";
import { DatabaseAddress } from "../../src/postgres/index.js";
import { serve as startServer } from "../../src/serve/index.js";
import { applyMissing, migrate, migrations, openStore, Preparation } from "../../src/store/index.js";
import { partsOf } from "../../src/store/migrations.js";
import { TestPeer } from "../peer/support/world.js";
import { makeExecutorSql, nameExecutorSql, testDatabase, testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { limitedInstaller } from "../support/limited-installer.js";
import { onServer, rowsOf } from "../support/on-server.js";

/** SHA-256 of the released steps. A line is added with each release, and never changed: databases have recorded them. */
const released = [
  "d8c3cf25cbba8a60a7969b9c85fe3e501ffa93f8289982151d382e9143ffa58b",
  "553548a533eaca3167868020e442ced15bd0c40369574fcbe4d278f43b64fa61",
];

it("a released step is never edited", () => {
  expect(releasedMigrations.map(({ sql }) => createHash("sha256").update(sql).digest("hex"))).toEqual(released);
});

/** By which `hawser serve` knows its own dead letters. */
const sealSql = "encode(sha256(token || sha256(convert_to(subject, 'UTF8')) || sha256('dead') || sha256('')), 'hex')";

/** Statements that fill the schema of the first step, as the peers `shop-1` and `orders-1` and a subscription do. */
const rows = (subject: string): string[] => [
  "INSERT INTO hawser_data.peers (name, epoch, in_group) VALUES ('shop-1', 3, false), ('orders-1', 2, true)",
  "INSERT INTO hawser_data.topic_addr (topic, addr, client_name, epoch, durable) VALUES ('orders', '127.0.0.1:1', 'orders-1', 2, true)",
  "UPDATE hawser_data.seq SET v = 2",
  "INSERT INTO hawser_data.topic_key (topic, k) VALUES ('orders', 1)",
  "INSERT INTO hawser_data.conn_key_map (composite, connection_key) VALUES ('shop-1:shop:orders-1', 2)",
  "INSERT INTO hawser_data.conn_sender (connection_key, sender_topic) VALUES (2, 'shop')",
  "INSERT INTO hawser_data.conn_mess_number (connection_key, v, epoch) VALUES (2, 4, 3)",
  "INSERT INTO hawser_data.conn_messages (connection_key, payload, epoch, number, topic_key) VALUES (2, 'stored', 3, 5, 1)",
  `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, connection_key, epoch, number)
   VALUES ('peer', 'shop-1:shop:orders-1', 'orders', 'dead', 'handler_failed', 'no', 5, 2, 3, 4)`,
  "CREATE TABLE taken (text text)",
  "CREATE FUNCTION take(bytea) RETURNS void LANGUAGE sql AS $$ INSERT INTO taken VALUES (convert_from($1, 'UTF8')) $$",
  `SELECT hawser.bind_handler('subscription', '${subject}', 'public.take(bytea)'::regprocedure::oid::bigint, '{public}')`,
  `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, handler_id, message_id)
   SELECT 'subscription', 'public.take(bytea)', subject, 'dead', 'P0001', 'no', 1, id, 'x.' || ${sealSql} FROM hawser_data.nats_handlers`,
  // What others than `hawser serve` have written: one of their own making, one of the outbox, and a copy.
  `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, handler_id, message_id, retry_requested)
   SELECT 'subscription', 'public.take(bytea)', subject, 'forged', 'P0001', 'no', 1, id, 'x.' || ${sealSql}, true FROM hawser_data.nats_handlers`,
  `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, message_id)
   VALUES ('outbox', 'core', '${subject}', 'forged', 'c', 'no', 1, 'x')`,
  `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, handler_id, message_id)
   SELECT origin, source, topic, payload, error_code, error_message, attempts, handler_id, message_id FROM hawser_data.dead_letters
    WHERE payload = 'dead' AND origin = 'subscription'`,
  `INSERT INTO hawser_data.saved_messages (handler_id, subject, payload, message_id)
   SELECT id, subject, 'saved', gen_random_uuid()::text FROM hawser_data.nats_handlers`,
  "SELECT hawser.bind_handler('stream', 'large', 'public.take(bytea)'::regprocedure::oid::bigint, '{public}')",
  `INSERT INTO hawser_data.stream_subscriptions (handler_id, name, stream, filters, consumer, start)
   SELECT id, 'large', 'LARGE', ARRAY[repeat('x', 20000)], 'hawser_large', 'all' FROM hawser_data.nats_handlers WHERE kind = 'stream'`,
];

/** All in the schema belongs to `hawser_owner`, as the grants leave it. */
const ownedSql = `DO $$
DECLARE
  statement text;
BEGIN
  -- First: owners have to be able to make things in it.
  ALTER SCHEMA hawser OWNER TO hawser_owner;
  FOR statement IN
    SELECT format('ALTER TABLE %s OWNER TO hawser_owner', c.oid::regclass) FROM pg_class AS c
     WHERE c.relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace) AND c.relkind = 'r'
    UNION ALL
    SELECT format('ALTER FUNCTION %s OWNER TO hawser_owner', p.oid::regprocedure) FROM pg_proc AS p
     WHERE p.pronamespace = 'hawser'::regnamespace
  LOOP
    EXECUTE statement;
  END LOOP;
END
$$`;

/** The released steps and rows, as an installation and its users have left them. */
async function oldDatabase(installerUrl: string, superuserUrl: string, subject: string): Promise<void> {
  await migrate({ databaseUrl: installerUrl }, releasedMigrations);
  await onServer(
    installerUrl,
    "CREATE SCHEMA hawser_run",
    "GRANT USAGE ON SCHEMA hawser_run TO hawser_executor",
    ownedSql,
  );
  await onServer(superuserUrl, nameExecutorSql, makeExecutorSql, ...rows(subject));
}

/** The database still has what was in it, and does what this version can do. */
async function expectToWork(url: string, subject: string): Promise<void> {
  expect(await rowsOf(url, "SELECT name, group_name FROM hawser_data.peers ORDER BY name")).toEqual([
    { name: "orders-1", group_name: "default" },
    { name: "shop-1", group_name: null },
  ]);
  expect(await rowsOf(url, "SELECT paused, problem, filters FROM hawser.stream_status")).toEqual([
    { paused: true, problem: expect.stringContaining("subscribe again"), filters: ["_hawser.filters_too_large"] },
  ]);
  const letters = await rowsOf(url, "SELECT id::int, origin FROM hawser_data.dead_letters ORDER BY id");
  expect(letters.map(({ origin }) => origin)).toEqual([
    "peer",
    "subscription",
    "subscription",
    "outbox",
    "subscription",
  ]);
  await using store = await openStore({ databaseUrl: url });
  const ids = letters.map(({ id }) => Number(id));
  const outcomes = await store.deadLetters.retry({ ids });
  expect(outcomes.slice(0, 2)).toMatchObject([{ outcome: "retried" }, { outcome: "requested" }]);
  // Those that `hawser serve` has not written, and the copy.
  expect(outcomes.slice(2)).toMatchObject(ids.slice(2).map((id) => ({ id, code: "not_permitted" })));
  await store.deadLetters.discard({ ids: ids.slice(2) });

  const peer = new TestPeer({ name: "orders-1", topic: "orders", listen: "127.0.0.1:0", databaseUrl: url });
  await peer.record();
  await eventually("the peer has what was stored, and what was retried", () => peer.texts.length >= 2);
  await peer.stop();
  expect(peer.texts.sort()).toEqual(["dead", "stored"]);

  const { hostname: host, port } = new URL(testNatsUrl());
  await onServer(url, `SELECT hawser.set_nats_server('${JSON.stringify({ host, port })}')`);
  const taken = async () => (await rowsOf(url, "SELECT text FROM taken ORDER BY text")).map(({ text }) => text);
  const serve = await startServer({ databaseUrl: url, listen: "127.0.0.1:0" });
  try {
    await eventually("what was saved and retried has run", async () => (await taken()).length >= 2);
    expect(await taken()).toEqual(["dead", "saved"]);
    await onServer(url, `SELECT hawser.enqueue('${subject}', 'enqueued', stream => false)`);
    await eventually("the subscription gets what was enqueued", async () => (await taken()).includes("enqueued"));
  } finally {
    await serve.stop();
  }
}

const steps = migrations.slice(releasedMigrations.length).map(({ id, name }) => ({ id, name }));

describe("hawser init on a database of the last release", () => {
  it("brings it up to date, and what is in it works", async () => {
    await using database = await testDatabase({ migrated: false });
    const subject = nuid.next();
    await oldDatabase(database.url, database.url, subject);
    expect((await install({ databaseUrl: database.url })).migrations).toEqual(steps);
    await expectToWork(database.url, subject);
  });

  it("does not advise beforehand to take from Hawser's roles what programs of that release need", async () => {
    await using database = await testDatabase({ migrated: false });
    await migrate({ databaseUrl: database.url }, releasedMigrations);
    const grant = (role: string) => [
      `GRANT UPDATE ON hawser_data.peers TO ${role}`,
      `GRANT EXECUTE ON FUNCTION hawser.take_name(text, text) TO ${role}`,
    ];
    await onServer(database.url, ...grant("hawser_peer"), ...grant("pg_monitor"));
    const { warnings } = await install({ databaseUrl: database.url, dryRun: true });
    const of = (role: string) => warnings.filter((line) => line.includes(`FROM "${role}"`)).length;
    expect([of("hawser_peer"), of("pg_monitor")]).toEqual([0, 2]);
  });

  it("does so for an owner that is no superuser", async () => {
    await using limited = await limitedInstaller();
    const subject = nuid.next();
    await onServer(limited.superuserUrl, `GRANT hawser_owner TO ${limited.role}`);
    await oldDatabase(limited.installerUrl, limited.superuserUrl, subject);
    const foreseen = await install({ databaseUrl: limited.installerUrl, dryRun: true });
    expect(foreseen.migrations).toEqual(steps);
    expect((await install({ databaseUrl: limited.installerUrl })).migrations).toEqual(steps);
    await expectToWork(limited.superuserUrl, subject);
  });
});

describe("a peer of the last release that still runs", () => {
  const fenceLock = "SELECT pg_advisory_xact_lock_shared(hashtextextended('hawser:fence:' || $1::text, 0))";
  const fenceCheck = "SELECT FROM hawser_data.peers WHERE name = $1 AND epoch = $2";
  const commit = "SELECT held, moved FROM hawser.commit_cursors($1, $2, '{2}', '{3}', '{5}', NULL, NULL)";
  const store = "SELECT held FROM hawser.store_messages('shop-1', 3, 2, 6, '{1}', '{4}', '{0}', NULL, 'late')";

  /** The tables of the last release, in which `shop-1` has stored a message for `orders-1`, and sessions of these two. */
  async function oldPeers() {
    const database = await testDatabase({ migrated: false });
    const { url } = database;
    await migrate({ databaseUrl: url }, releasedMigrations);
    await onServer(url, ...rows("unused").slice(0, 8), "CREATE TABLE effects (text text)");
    const clients = [new pg.Client({ connectionString: url }), new pg.Client({ connectionString: url })] as const;
    for (const client of clients) await client.connect();
    return {
      url,
      clients,
      waits: (query: string) =>
        eventually(`${query} waits`, async () => {
          const waiting = await rowsOf(
            url,
            `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%${query}%'`,
          );
          return waiting.length === 1;
        }),
      [Symbol.asyncDispose]: async () => {
        for (const client of clients) await client.end();
        await database.drop();
      },
    };
  }

  it("is waited for with what it is about to commit, and writes nothing later", async () => {
    await using old = await oldPeers();
    const [orders, shop] = old.clients;
    // An installation was ended between two parts of the step. The next one goes on where it waits for writes.
    for (const { sql } of partsOf(migrations.at(-1)!).slice(0, -1)) await onServer(old.url, sql);
    // A handler's transaction, up to its COMMIT.
    await orders.query("BEGIN ISOLATION LEVEL READ COMMITTED");
    expect((await orders.query(fenceCheck, ["orders-1", 2])).rowCount).toBe(1);
    await orders.query("INSERT INTO effects VALUES ('once')");
    expect((await orders.query(commit, ["orders-1", 2])).rows).toEqual([{ held: true, moved: true }]);
    const installer = new pg.Client({ connectionString: old.url });
    await installer.connect();
    // It gives way to nobody, so that the other write waits for it.
    const limits = { lockMs: 3_600_000 };
    const preparation = new Preparation(installer, { address: DatabaseAddress.of(old.url), limits });
    const migrating = applyMissing(preparation).finally(() => installer.end());
    await old.waits("LOCK TABLE hawser_data.peers IN ACCESS EXCLUSIVE");
    // A write that the old function has begun, and that would end behind the migration.
    const storing = shop.query(store);
    await old.waits("store_messages");
    await orders.query("COMMIT");
    expect((await migrating).map(({ id }) => id)).toEqual(steps.map(({ id }) => id));
    expect((await storing).rows).toEqual([{ held: false }]);
    expect(await rowsOf(old.url, "SELECT v::int, text FROM hawser_data.conn_mess_number, effects")).toEqual([
      { v: 5, text: "once" },
    ]);
    expect(await rowsOf(old.url, "SELECT FROM hawser_data.conn_messages")).toEqual([]);
  });

  it("is refused from then on, whatever locks it has", async () => {
    await using old = await oldPeers();
    const [orders, shop] = old.clients;
    for (const [client, name] of [
      [orders, "orders-1"],
      [shop, "shop-1"],
    ] as const) {
      await client.query("SELECT pg_advisory_lock(hashtextextended('hawser:lease:' || $1, 0))", [name]);
    }
    await migrate({ databaseUrl: old.url });
    await orders.query("BEGIN ISOLATION LEVEL READ COMMITTED");
    await orders.query(fenceLock, ["orders-1"]);
    expect((await orders.query(fenceCheck, ["orders-1", 2])).rowCount).toBe(0);
    expect((await orders.query(commit, ["orders-1", 2])).rows).toEqual([{ held: false, moved: null }]);
    // It keeps that lock, and nobody waits for it.
    await using world = await openStore({ databaseUrl: old.url });
    const lease = await world.takeName("orders-1", { waitMs: 0 });
    expect(lease.epoch).toBeGreaterThan(2);
    expect(lease.wasClean).toBe(true);
    expect((await shop.query(store)).rows).toEqual([{ held: false }]);
    // As it looks whether it has its name, and takes it again.
    expect(
      (await shop.query("SELECT epoch > 3 AS later, token FROM hawser_data.peers WHERE name = 'shop-1'")).rows,
    ).toEqual([{ later: true, token: null }]);
    await expect(shop.query("SELECT FROM hawser.take_name('shop-1', 'old')")).rejects.toMatchObject({
      code: errorTable.schema_too_new.sqlstate,
      message: 'the schema hawser is newer than the program that takes the name "shop-1"',
    });
    await shop.query("SET ROLE hawser_peer");
    await expect(shop.query("UPDATE hawser_data.peers SET clean = true")).rejects.toMatchObject({ code: "42501" });
  });
});
