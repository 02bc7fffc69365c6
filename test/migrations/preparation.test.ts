/**
 * A database is prepared while others work in it, and gives way to them.
 */
import { EventEmitter, once } from "node:events";
import pg from "pg";
import { describe, expect, it, onTestFinished } from "vitest";
import { DatabaseAddress } from "../../src/foundation/postgres/index.js";
import {
  applyMissing,
  migrate,
  migrations,
  missingSteps,
  Preparation,
  plannedTransactions,
  programSchema,
  takeInstallationLock,
} from "../../src/jobs-and-peers/migrations/index.js";
import { install } from "../../src/operating/installation/index.js";
import { madeStep, programWithMade } from "../store/support/made-step.js";
import { textMessages, type World, world } from "../store/support/world.js";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { slowIt } from "../support/slow-it.js";

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => undefined);
  await client.connect();
  onTestFinished(() => client.end());
  return client;
}

/** As pg_dump does: of all tables and views. */
const readAllSql = `DO $$
DECLARE
  relation regclass;
BEGIN
  FOR relation IN
    SELECT c.oid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v') AND n.nspname !~ '^(pg_|information_schema$)'
  LOOP
    EXECUTE format('LOCK TABLE %s IN ACCESS SHARE MODE', relation);
  END LOOP;
END
$$`;

slowIt(
  "an init with nothing to do waits for no reader, and creates a view again that differs from this version",
  async () => {
    await using database = await testDatabase();
    await install({ databaseUrl: database.url });
    const dump = await connected(database.url);
    await dump.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    await dump.query(readAllSql);
    const report = await install({ databaseUrl: database.url });
    expect(report.missingPrivileges).toEqual([]);
    expect(report.migrations).toEqual([]);
    await dump.query("COMMIT");

    const definition = () =>
      rowsOf(
        database.url,
        "SELECT pg_get_viewdef(c.oid) AS text, c.reloptions FROM pg_class AS c WHERE c.oid = 'pgnats.subscriptions'::regclass",
      );
    const made = await definition();
    await onServer(
      database.url,
      "CREATE OR REPLACE VIEW pgnats.subscriptions WITH (security_barrier = false) AS SELECT ''::text AS subject, ''::text COLLATE \"C\" AS callback",
    );
    expect(await definition()).not.toEqual(made);
    await install({ databaseUrl: database.url });
    expect(await definition()).toEqual(made);
  },
);

/** For ever, as far as a test goes. */
const forever = 3_600_000;

interface Installer {
  readonly client: pg.Client;
  readonly preparation: Preparation;
  /** Resolves with the first line that it was told. */
  readonly told: Promise<string>;
}

async function installer(
  url: string,
  limits: ConstructorParameters<typeof Preparation>[1]["limits"],
): Promise<Installer> {
  const client = await connected(url);
  const lines = new EventEmitter();
  const told = once(lines, "line").then(([line]) => line as string);
  const onWait = (line: string): void => void lines.emit("line", line);
  return { client, preparation: new Preparation(client, { address: DatabaseAddress.of(url), limits, onWait }), told };
}

function waits(url: string, what: string): Promise<void> {
  return eventually(`"${what}" waits for a lock`, async () => {
    const waiting = await rowsOf(
      url,
      `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%${what}%'`,
    );
    return waiting.length > 0;
  });
}

async function hasMade(url: string): Promise<unknown> {
  const [row] = await rowsOf(
    url,
    `SELECT (SELECT c.convalidated FROM pg_constraint AS c WHERE c.conname = 'stored_messages_made') AS check,
            (SELECT i.indisvalid FROM pg_index AS i WHERE i.indexrelid = to_regclass('hawser_peer_data.stored_messages_made_idx')) AS index,
            (SELECT count(*)::integer FROM pg_attribute AS a WHERE a.attname = 'made' AND a.attrelid::regclass::text ~ '^hawser_\\w*data[.]') AS columns,
            (SELECT count(*)::integer FROM hawser_data.migrations AS m WHERE m.id = ${madeStep.id}) AS recorded`,
  );
  return row;
}
const allMade = { check: true, index: true, columns: 3, recorded: 1 };

/** A peer in the database, which stores a message at each call. */
async function storingPeer(w: World) {
  const lease = await w.take("sender");
  const channel = await w.channelOf({ name: "sender", sourceTopic: "source" }, "listener");
  let number = 0;
  return { lease, channel, store: () => w.store.storeMessages(lease, channel, ++number, textMessages("a")) };
}

describe("a step of the schema", () => {
  it("waits in short attempts, between which peers proceed, and reports for whom it waits", async () => {
    await using w = await world();
    const { store } = await storingPeer(w);
    const reader = await connected(w.url);
    await reader.query("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM hawser_peer_data.stored_messages");
    const { rows } = await reader.query("SELECT pg_backend_pid() AS pid, current_user AS role");
    const { preparation, told } = await installer(w.url, { lockMs: 40, pauseMs: 40, noticeMs: 0 });
    const migrating = applyMissing(preparation, programWithMade);
    expect(await told).toMatch(
      new RegExp(
        `^waiting for the session ${rows[0].pid} \\("${rows[0].role}"; its transaction is \\d+ s old\\), to apply migration ${madeStep.id} \\(made for a test\\)$`,
      ),
    );
    for (let n = 0; n < 20; n++) expect(await store()).toBe("stored");
    expect(await hasMade(w.url)).toEqual({ check: null, index: null, columns: 0, recorded: 0 });
    await reader.query("COMMIT");
    expect(await migrating).toEqual([madeStep]);
    expect(await hasMade(w.url)).toEqual(allMade);
    expect(await store()).toBe("stored");
  });

  it("names the blocking session when it gives up, with nothing changed", async () => {
    await using w = await world();
    const reader = await connected(w.url);
    await reader.query("BEGIN; SELECT FROM hawser_peer_data.stored_messages");
    const [{ pid }] = (await reader.query("SELECT pg_backend_pid() AS pid")).rows;
    const { preparation } = await installer(w.url, { lockMs: 40, pauseMs: 10, noticeMs: 0, limitMs: 0 });
    await expect(applyMissing(preparation, programWithMade)).rejects.toMatchObject({
      code: "store_failed",
      message: expect.stringMatching(
        new RegExp(`^could not apply migration ${madeStep.id} .* it was held by the session ${pid} \\(`),
      ),
      remedy: expect.stringContaining(`SELECT pg_terminate_backend(${pid})`),
    });
    expect(await hasMade(w.url)).toEqual({ check: null, index: null, columns: 0, recorded: 0 });
  });

  it("holds no lock for which a peer waits while it waits for that peer's write", async () => {
    await using w = await world();
    const { lease, channel } = await storingPeer(w);
    const peer = await connected(w.url);
    await peer.query("BEGIN");
    const { rows } = await peer.query("SELECT held FROM hawser.fenced($1, $2)", [lease.name, lease.epoch]);
    expect(rows).toEqual([{ held: true }]);
    const { preparation } = await installer(w.url, { lockMs: forever });
    const migrating = applyMissing(preparation, programWithMade);
    await waits(w.url, "LOCK TABLE hawser_data.owners IN ACCESS EXCLUSIVE");
    await peer.query(
      "INSERT INTO hawser_peer_data.stored_messages (channel_id, epoch, number, payload) VALUES ($1, $2, 1, 'a')",
      [channel, lease.epoch],
    );
    await peer.query("UPDATE hawser_peer_data.peers SET clean = false");
    await peer.query("COMMIT");
    expect(await migrating).toEqual([madeStep]);
    expect(await hasMade(w.url)).toEqual(allMade);
  });

  it("waits for a vacuum without blocking peers", async () => {
    await using w = await world();
    const { store } = await storingPeer(w);
    const vacuum = await connected(w.url);
    await vacuum.query("BEGIN; LOCK TABLE hawser_peer_data.stored_messages IN SHARE UPDATE EXCLUSIVE MODE");
    const { preparation } = await installer(w.url, { lockMs: 1 });
    const migrating = applyMissing(preparation, programWithMade);
    await waits(w.url, "LOCK TABLE hawser_peer_data.stored_messages IN SHARE UPDATE EXCLUSIVE");
    expect(await store()).toBe("stored");
    await vacuum.query("COMMIT");
    expect(await migrating).toEqual([madeStep]);
  });

  it("is completed by the next installation if one was killed between its parts, and replaces a half-built index", async () => {
    await using w = await world();
    const { store } = await storingPeer(w);
    const reader = await connected(w.url);
    await reader.query("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT");
    const killed = await installer(w.url, {});
    const migrating = applyMissing(killed.preparation, programWithMade);
    await Promise.all([
      expect(migrating).rejects.toMatchObject({ code: "store_failed" }),
      waits(w.url, "CREATE INDEX CONCURRENTLY").then(() =>
        onServer(
          w.url,
          "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%CREATE INDEX CONCURRENTLY%' AND pid <> pg_backend_pid()",
        ),
      ),
    ]);
    expect(await hasMade(w.url)).toEqual({ check: true, index: false, columns: 0, recorded: 0 });
    expect(await store()).toBe("stored");
    await reader.query("COMMIT");
    const { preparation } = await installer(w.url, {});
    expect(await applyMissing(preparation, programWithMade)).toEqual([madeStep]);
    expect(await hasMade(w.url)).toEqual(allMade);
  });

  it("locks all tables that it changes before it changes the first one", async () => {
    await using database = await testDatabase({ migrated: false });
    await migrate({ databaseUrl: database.url }, { ...programSchema, steps: migrations.slice(0, 1) });
    const { client, preparation } = await installer(database.url, {});
    const query = client.query.bind(client);
    const tablesSql =
      "SELECT c.oid, c.relname FROM pg_class AS c WHERE c.relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace, 'hawser_peer_data'::regnamespace, 'hawser_bridge_data'::regnamespace) AND c.relkind IN ('r', 'p')";
    const lockedSql = `SELECT l.relation AS oid FROM pg_locks AS l WHERE l.pid = pg_backend_pid()
      AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')`;
    for (const [n, step] of [...migrations, madeStep].entries()) {
      if (n === 0) continue;
      const program = { ...programSchema, steps: [...migrations, madeStep].slice(0, n + 1) };
      const parts = plannedTransactions(await missingSteps(client, program), program).filter(
        ({ isTransaction }) => isTransaction,
      );
      const lockedLater: string[] = [];
      let lockedFirst = 0;
      client.query = (async (text: string, values?: unknown[]) => {
        if (!parts.some(({ sql }) => sql === text)) return query(text, values);
        const { rows: tables } = await query<{ oid: number; relname: string }>(tablesSql);
        const locked = async () => {
          const oids = (await query<{ oid: number }>(lockedSql)).rows.map(({ oid }) => oid);
          return tables.filter(({ oid }) => oids.includes(oid)).map(({ relname }) => relname);
        };
        const before = await locked();
        lockedFirst += before.length;
        const result = await query(text, values);
        lockedLater.push(...(await locked()).filter((name) => !before.includes(name)));
        return result;
      }) as typeof client.query;
      expect(await applyMissing(preparation, program)).toEqual([step]);
      expect(lockedFirst, step.name).toBeGreaterThan(0);
      expect(lockedLater, step.name).toEqual([]);
    }
  });
});

it("a session that waits for the installation lock does not block a concurrent index build", async () => {
  await using database = await testDatabase({ migrated: false });
  const [first, second] = [await connected(database.url), await connected(database.url)];
  await takeInstallationLock(first, () => undefined);
  const { rows } = await second.query("SELECT pg_backend_pid() AS pid");
  const waiting = takeInstallationLock(second, () => undefined);
  await eventually("the second one asks for the turn", async () => {
    const [asking] = await rowsOf(database.url, `SELECT query FROM pg_stat_activity WHERE pid = ${rows[0].pid}`);
    return String(asking?.["query"]).includes("advisory_lock");
  });
  await first.query("CREATE TABLE made (n integer)");
  await first.query("CREATE INDEX CONCURRENTLY made_n ON made (n)");
  await first.end();
  await waiting;
});
