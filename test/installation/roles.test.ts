/**
 * Who may do what in the database, tried by logins that have one role each.
 */
import { randomBytes } from "node:crypto";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { HawserError } from "../../src/foundation/errors/index.js";
import { grants, migrate } from "../../src/jobs-and-peers/migrations/index.js";
import { monitor, Peer } from "../../src/jobs-and-peers/peer/index.js";
import { install } from "../../src/operating/installation/index.js";
import { meshSecrets, withCommandDatabase } from "../../src/operating/operate/index.js";
import { listPeers, listPending, listTopics } from "../../src/operating/operate/mesh-overview.js";
import { type PeerWorld, peerWorld } from "../peer/support/world.js";
import { schemaOwner } from "../store/support/schema-owner.js";
import { eventually } from "../support/eventually.js";
import { onServer } from "../support/on-server.js";

const suffix = randomBytes(4).toString("hex");

/** The database as another user sees it. */
function as(user: string, databaseUrl: string): string {
  const url = new URL(databaseUrl);
  url.username = user;
  url.password = "test";
  return url.href;
}

/** The statements with the SQLSTATE that each fails with, "none" if it does not; in one session. */
async function refusals(databaseUrl: string, statements: readonly string[]): Promise<string[]> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  const results: string[] = [];
  for (const statement of statements) {
    const code = await client.query(statement).then(
      () => "none",
      (error: pg.DatabaseError) => error.code,
    );
    results.push(`${statement} ${code}`);
  }
  await client.end();
  return results;
}

const denied = "42501";

describe("the roles of a database", () => {
  const peerLogin = `test_peer_${suffix}`;
  const strangerLogin = `test_stranger_${suffix}`;
  const ownerLogin = `test_owner_${suffix}`;
  let world: PeerWorld;

  beforeAll(async () => {
    world = await peerWorld();
    // A template of HAWSER_TEST_INSTALLER=limited belongs to its installer; this is the remedy that `hawser init` names.
    await install({ databaseUrl: world.url });
    await onServer(
      world.url,
      `CREATE ROLE ${peerLogin} LOGIN PASSWORD 'test' IN ROLE hawser_peer`,
      `CREATE ROLE ${strangerLogin} LOGIN PASSWORD 'test'`,
      `CREATE ROLE ${ownerLogin} LOGIN PASSWORD 'test' IN ROLE hawser_owner`,
    );
  });
  afterAll(async () => {
    await onServer(world.url, `DROP OWNED BY ${peerLogin}`);
    for (const role of [peerLogin, strangerLogin, ownerLogin]) await onServer(world.url, `DROP ROLE ${role}`);
    await world[Symbol.asyncDispose]();
  });

  describe("a login with hawser_peer and nothing else", () => {
    it("runs peers: sends, stores, drains, dead-letters, subscribes, and cleans up after itself", async () => {
      const databaseUrl = as(peerLogin, world.url);
      const defaults = { durable: true, retry: { attempts: 2, delayMs: 1 } };
      const billing = await world.started("billing-1", { databaseUrl, defaults }, ({ payload }) => {
        if (Buffer.from(payload).toString() === "poison") throw new Error("too much");
      });
      const shop = await world.started("shop-1", { databaseUrl });

      expect(await shop.send("billing", "live")).toMatchObject({ outcome: "delivered" });
      expect(await shop.send("billing", "now", { delivery: "at-most-once" })).toMatchObject({ outcome: "sent" });
      await shop.send("billing", "poison");
      await billing.saw("dead_letter");
      const letters = () => world.query("SELECT topic, error_code FROM hawser_data.dead_letters");
      await eventually("the dead letter is there", async () => (await letters()).length > 0);
      // What is counted in the database is there only if the login may read it.
      const page = await monitor(billing, shop)({ url: "/metrics" });
      expect(await page.text()).toContain('hawser_peer_recent_dead_letters{peer="billing-1",topic="billing"} 1\n');
      expect(await letters()).toEqual([{ topic: "billing", error_code: "handler_failed" }]);

      await billing.recordTopic("news");
      expect(await shop.sendAll("news", "to all")).toMatchObject([
        { outcome: expect.stringMatching(/delivered|stored/) },
      ]);
      // Behind the poison it may be in the queue, where it would wait for somebody who serves its topic.
      await billing.received.find(({ text }) => text === "to all");
      await world.handled();
      await billing.leave("news");
      expect((await shop.listenersOf("news", { refresh: true })).length > 0).toBe(false);

      await billing.stop();
      expect(await shop.send("billing", "stored")).toMatchObject({ outcome: "stored" });
      expect((await shop.pending()).count).toBe(1);
      expect((await shop.pending()).listeners).toMatchObject([{ topic: "billing", name: "billing-1", count: 1 }]);
      await billing.record();
      await billing.received.find(({ text }) => text === "stored");
      await eventually("its row is gone", async () => (await world.storedMessages()) === 0);

      await billing.stop();
      await shop.send("billing", "to be cleared");
      await shop.stop();
      await shop.clearStored();
      expect((await shop.pending()).count).toBe(0);
      await shop.clearAddresses();
      expect(await shop.listenersOf("shop")).toEqual([]);
    });

    it("runs a transactional peer with its own privileges on its own tables", async () => {
      await onServer(
        world.url,
        `CREATE TABLE effects_${suffix} (payload text)`,
        `GRANT ALL ON effects_${suffix} TO ${peerLogin}`,
      );
      const databaseUrl = as(peerLogin, world.url);
      await world.started("ledger-1", { databaseUrl, transactional: true }, async ({ client, payload }) => {
        await client!.query(`INSERT INTO effects_${suffix} VALUES ($1)`, [Buffer.from(payload).toString()]);
      });
      const till = await world.started("till-1", { databaseUrl });
      await till.send("ledger", "once");
      await eventually("it has had its effect", async () => {
        const effects = await world.query(`SELECT payload FROM effects_${suffix}`);
        return effects.length === 1;
      });
    });

    it("sees the mesh as the commands show it", async () => {
      await (await world.started("seen-1", { databaseUrl: as(peerLogin, world.url) })).stop();
      const lists = await withCommandDatabase(as(peerLogin, world.url), async (database) => [
        await listTopics(database),
        await listPeers(database),
        await listPending(database),
      ]);
      expect(lists[1]).toContainEqual(expect.objectContaining({ name: "seen-1", running: false }));
    });

    it("may change nothing that belongs to the owner", async () => {
      // What it may do with tables, sequences and functions is in the list of its privileges, below.
      const statements = [
        "CREATE TABLE hawser.mine (id integer)",
        "CREATE OR REPLACE FUNCTION hawser.id_of_topic(p_topic text, OUT id integer) LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA mine",
        "ALTER FUNCTION hawser.id_of_topic(text) SECURITY DEFINER",
        "DROP FUNCTION hawser.id_of_topic(text)",
        "ALTER TABLE hawser_peer_data.peers ADD COLUMN mine integer",
        "ALTER TABLE hawser_peer_data.listeners DISABLE TRIGGER ALL",
        "CREATE TRIGGER mine AFTER INSERT ON hawser_peer_data.peers EXECUTE FUNCTION hawser.listeners_notify()",
        "DROP SCHEMA hawser, hawser_data, hawser_peer_data, hawser_bridge_data CASCADE",
        "UPDATE hawser_peer_data.mesh_secret SET secret = decode(repeat('00', 32), 'hex')",
        "UPDATE hawser_data.dead_letters SET payload = ''",
        `GRANT hawser_peer TO ${strangerLogin}`,
        "SET ROLE hawser_owner",
      ];
      const refused = statements.map((statement) => `${statement} ${denied}`);
      expect(await refusals(as(peerLogin, world.url), statements)).toEqual(refused);
    });

    it("cannot grant its privileges to others", async () => {
      // Postgres only warns.
      await onServer(as(peerLogin, world.url), `GRANT SELECT ON hawser_peer_data.mesh_secret TO ${strangerLogin}`);
      expect(
        await world.query(
          `SELECT has_table_privilege('${strangerLogin}', 'hawser_peer_data.mesh_secret', 'SELECT') AS may`,
        ),
      ).toEqual([{ may: false }]);
    });

    it("may not rotate or retire the mesh secret, and gets an error that names who may", async () => {
      const databaseUrl = as(peerLogin, world.url);
      await withCommandDatabase(databaseUrl, async (database) => {
        const { rotateSecret, retireSecret, meshSecrets: list } = meshSecrets(database);
        for (const step of [rotateSecret, retireSecret]) {
          await expect(step()).rejects.toThrow(/permission denied.*use a role that is a member of hawser_owner/);
        }
        expect(await list()).toHaveLength(1);
      });
    });

    it("has exactly the privileges of the spec on tables, sequences and functions", async () => {
      const have = await world.query<{ object: string; privilege: string }>(
        `SELECT o.object, a.privilege_type AS privilege
           FROM (
             SELECT 'SCHEMA ' || nspname AS object, nspacl AS acl FROM pg_namespace WHERE nspname IN ('hawser', 'hawser_data', 'hawser_peer_data', 'hawser_bridge_data')
             UNION ALL
             SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || oid::regclass, relacl FROM pg_class
              WHERE relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace, 'hawser_peer_data'::regnamespace, 'hawser_bridge_data'::regnamespace) AND relkind NOT IN ('i', 'I', 't')
             UNION ALL
             SELECT 'FUNCTION ' || oid::regprocedure, proacl FROM pg_proc WHERE pronamespace = 'hawser'::regnamespace
           ) AS o CROSS JOIN LATERAL aclexplode(o.acl) AS a
          WHERE a.grantee = 'hawser_peer'::regrole`,
      );
      const fullName = "timestamp with time zone";
      const wanted = grants
        .filter(({ role }) => role === "hawser_peer")
        .map(({ kind, object, privilege }) => `${kind} ${object.replaceAll("timestamptz", fullName)}: ${privilege}`);
      const listed = have.map(({ object, privilege }) => `${object.replaceAll(",", ", ")}: ${privilege}`);
      expect(listed.sort()).toEqual([...new Set(wanted)].sort());
      expect(wanted.length).toBeGreaterThan(30);
      const columns = await world.query(
        `SELECT attrelid::regclass, attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
          WHERE c.relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace, 'hawser_peer_data'::regnamespace, 'hawser_bridge_data'::regnamespace) AND attacl IS NOT NULL`,
      );
      expect(columns).toEqual([]);
    });
  });

  describe("a login without any grant", () => {
    it("reads no table and calls no function", async () => {
      const databaseUrl = as(strangerLogin, world.url);
      const tables = await world.query<{ name: string }>(
        `SELECT oid::regclass::text AS name FROM pg_class
          WHERE relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace, 'hawser_peer_data'::regnamespace, 'hawser_bridge_data'::regnamespace) AND relkind IN ('r', 'p', 'v', 'S')`,
      );
      expect(tables.map(({ name }) => name)).toContain("hawser_peer_data.mesh_secret");
      const functions = await world.query<{ call: string }>(
        `SELECT format('SELECT hawser.%I(%s)', proname, (
                  SELECT string_agg(format('NULL::%s', t::regtype), ', ') FROM unnest(proargtypes) AS t
                )) AS call
           FROM pg_proc WHERE pronamespace = 'hawser'::regnamespace AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)`,
      );
      expect(functions.length).toBeGreaterThan(8);
      const statements = [...tables.map(({ name }) => `SELECT FROM ${name}`), ...functions.map(({ call }) => call)];
      const refused = statements.map((statement) => `${statement} ${denied}`);
      expect(await refusals(databaseUrl, statements)).toEqual(refused);
    });

    it("starts no peer, and gets an error that names the missing grant", async () => {
      const peer = new Peer({
        name: "stranger-1",
        topic: "stranger",
        listen: "127.0.0.1:0",
        databaseUrl: as(strangerLogin, world.url),
      });
      const error = await peer.start().catch((thrown) => thrown);
      expect(error instanceof HawserError && error.code).toBe("startup_failed");
      expect(error.message).toContain(`GRANT hawser_peer TO "${strangerLogin}"`);
    });
  });

  it("has no grants to PUBLIC", async () => {
    const open = await world.query(
      `SELECT o.object, a.privilege_type
         FROM (
           SELECT 'schema' AS object, coalesce(nspacl, acldefault('n', nspowner)) AS acl FROM pg_namespace WHERE nspname IN ('hawser', 'hawser_data', 'hawser_peer_data', 'hawser_bridge_data')
           UNION ALL
           SELECT oid::regclass::text, coalesce(relacl, acldefault((CASE relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", relowner))
             FROM pg_class WHERE relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace, 'hawser_peer_data'::regnamespace, 'hawser_bridge_data'::regnamespace) AND relkind NOT IN ('i', 'I', 't')
           UNION ALL
           SELECT oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner))
             FROM pg_proc WHERE pronamespace = 'hawser'::regnamespace
         ) AS o CROSS JOIN LATERAL aclexplode(o.acl) AS a
        WHERE a.grantee = 0`,
    );
    expect(open).toEqual([]);
  });

  it("has no function whose search_path the caller controls, and no object of another owner", async () => {
    const functions = await world.query<{ name: string; settings: string[] | null; owner: string }>(
      `SELECT oid::regprocedure::text AS name, proconfig AS settings, pg_get_userbyid(proowner) AS owner
         FROM pg_proc WHERE pronamespace = 'hawser'::regnamespace`,
    );
    for (const { name, settings, owner } of functions) {
      // They run within functions that have pinned it, each time that SQL reaches NATS; nobody else may call them.
      if (/^hawser\.(gateway_call|gateway_lost|next_message_id)\(/.test(name)) continue;
      expect({ name, owner, path: settings?.find((setting) => setting.startsWith("search_path=")) }).toEqual({
        name,
        owner: "hawser_owner",
        path: expect.stringMatching(/^search_path=pg_catalog(, \w+)*, pg_temp$/),
      });
    }
    const relations = await world.query(
      `SELECT oid::regclass FROM pg_class
        WHERE relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace, 'hawser_peer_data'::regnamespace, 'hawser_bridge_data'::regnamespace) AND pg_get_userbyid(relowner) <> 'hawser_owner'`,
    );
    expect(relations).toEqual([]);
  });

  it("lets a member of hawser_owner migrate, grant and rotate", async () => {
    const databaseUrl = as(ownerLogin, world.url);
    expect(await install({ databaseUrl })).toMatchObject({ migrations: [], missingPrivileges: [] });
    await withCommandDatabase(databaseUrl, async (database) => {
      const { rotateSecret, retireSecret } = meshSecrets(database);
      expect(await rotateSecret()).toMatchObject({ id: 2 });
      expect(await retireSecret()).toMatchObject([{ id: 1 }]);
    });
  });
});

describe("a database without the schema", () => {
  it("is refused to a login with hawser_peer: a peer does not start, and asks to run hawser init", async () => {
    await using world = await peerWorld({ migrated: false });
    const login = `test_early_${suffix}`;
    await onServer(world.url, `CREATE ROLE ${login} LOGIN PASSWORD 'test' IN ROLE hawser_peer`);
    try {
      const error = await world
        .peer("early-1", { databaseUrl: as(login, world.url) })
        .start()
        .catch((thrown) => thrown);
      expect(error instanceof HawserError && error.code).toBe("schema_missing");
      expect(error.message).toContain("`hawser init`");
      expect(
        await world.query(
          "SELECT FROM pg_namespace WHERE nspname IN ('hawser', 'hawser_data', 'hawser_peer_data', 'hawser_bridge_data')",
        ),
      ).toEqual([]);
    } finally {
      await onServer(world.url, `DROP ROLE ${login}`);
    }
  });

  it("an older schema is refused with the role that can migrate it", async () => {
    await using world = await peerWorld();
    const login = `test_late_${suffix}`;
    await onServer(world.url, `CREATE ROLE ${login} LOGIN PASSWORD 'test' IN ROLE hawser_peer`);
    try {
      await onServer(world.url, "DELETE FROM hawser_data.migrations");
      const error = await migrate({ databaseUrl: as(login, world.url) }).catch((thrown) => thrown);
      expect(error instanceof HawserError && error.code).toBe("schema_missing");
      expect(error.message).toContain(`run \`hawser init\` as its owner, "${await schemaOwner(world.url)}"`);
    } finally {
      await onServer(world.url, `DROP ROLE ${login}`);
    }
  });
});
