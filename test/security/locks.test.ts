/**
 * Locks of relations. Postgres takes the lock of a statement's relations before it looks at privileges, so that a role that can name
 * a relation can hold its lock, and queue for a stronger one, behind which all others wait. A login that may use the schema `hawser`,
 * as one that enqueues, can name no table, and what it holds of tables by views is in nobody's way. Peers and `hawser serve` can name
 * tables of their own, and are not in each other's way. `named-relations.test.ts` has the relations that each role can name.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Login, login } from "../installation/support/logins.js";
import { natsTurn, takeNats } from "../outbox/support/turns.js";
import { type PeerWorld, peerWorld, type TestPeer } from "../peer/support/world.js";
import { eventually } from "../support/eventually.js";

/** Statements that lock a relation, weakly, when they are prepared. */
const weak = [
  "SELECT FROM @",
  "SELECT FROM @ FOR UPDATE",
  "INSERT INTO @ DEFAULT VALUES",
  "UPDATE @ SET * = *",
  "DELETE FROM @",
];

/** Statements that queue for a lock of a relation. */
const strong = [
  "CREATE RULE mine AS ON INSERT TO @ DO ALSO NOTHING",
  "CREATE TRIGGER mine AFTER INSERT ON @ EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()",
  "CREATE TABLE pg_temp.mine (a integer REFERENCES @)",
  "CREATE TABLE pg_temp.mine () INHERITS (@)",
  "CREATE TABLE pg_temp.mine (LIKE @)",
  "CREATE INDEX ON @ ((true))",
  "CREATE STATISTICS pg_temp.mine ON (1), (2) FROM @",
  "CREATE POLICY mine ON @",
  "ALTER TABLE @ ADD COLUMN mine integer",
  "ALTER VIEW @ SET (security_barrier = false)",
  "ALTER TABLE @ RENAME TO mine",
  "ALTER TABLE @ SET SCHEMA pg_temp",
  "ALTER TABLE @ OWNER TO CURRENT_USER",
  "COMMENT ON TABLE @ IS 'mine'",
  "COMMENT ON VIEW @ IS 'mine'",
  "GRANT SELECT ON @ TO PUBLIC",
  "DO 'BEGIN LOCK TABLE @ IN ACCESS EXCLUSIVE MODE; END'",
  "DO 'BEGIN LOCK TABLE @ IN ACCESS SHARE MODE; END'",
  "TRUNCATE @",
  "DROP TABLE @",
  "DROP VIEW @",
  "REINDEX TABLE @",
  "CLUSTER @",
  "VACUUM FULL @",
  "ANALYZE @",
];

const waitsForLock = "55P03";
const denied = "42501";

/** A relation of Hawser. */
interface Relation {
  readonly name: string;
  readonly isView: boolean;
  readonly columns: readonly string[];
}

const everybody = ["peers", "serve"] as const;

/** Logins, the schema with tables that each can name, and those whom it must not delay. */
describe.each([
  { what: "USAGE on the schema and nothing else", options: "", schema: undefined, spared: everybody },
  { what: "the role of enqueuers", options: "IN ROLE hawser_nats", schema: undefined, spared: everybody },
  { what: "the role of peers", options: "IN ROLE hawser_peer", schema: "hawser_peer_data", spared: ["serve"] },
  { what: "the role of serve", options: "IN ROLE hawser_bridge", schema: "hawser_bridge_data", spared: ["peers"] },
])("a login with $what", ({ options, schema, spared }) => {
  let world: PeerWorld;
  let mallory: Login & AsyncDisposable;
  let peerLogin: Login & AsyncDisposable;
  let serveLogin: Login & AsyncDisposable;
  let relations: readonly Relation[];
  const clients: pg.Client[] = [];

  async function connected(url: string, settings = ""): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: url, options: settings });
    client.on("error", () => undefined);
    clients.push(client);
    await client.connect();
    return client;
  }

  const errorOf = async (client: pg.Client, statement: string): Promise<string> => {
    try {
      await client.query(statement);
      return "none";
    } catch (error) {
      return (error as pg.DatabaseError).code ?? String(error);
    }
  };

  const named = (statement: string, { name, columns }: Relation): string =>
    statement.replace("* = *", `${columns[0]} = ${columns[0]}`).replace("@", name);

  beforeAll(async () => {
    world = await peerWorld({ keepsConnections: true });
    mallory = await login(world.url, options);
    peerLogin = await login(world.url, "IN ROLE hawser_peer");
    serveLogin = await login(world.url, "IN ROLE hawser_bridge, hawser_nats");
    await world.query(`GRANT USAGE ON SCHEMA hawser TO ${mallory.role}`);
    relations = await world.query<Relation>(
      `SELECT c.oid::regclass::text AS name, c.relkind = 'v' AS "isView", array_agg(a.attname::text ORDER BY a.attnum) AS columns
         FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace, 'hawser_peer_data'::regnamespace, 'hawser_bridge_data'::regnamespace) AND c.relkind IN ('r', 'p', 'v')
        GROUP BY 1, 2 ORDER BY 1`,
    );
  });
  afterAll(async () => {
    await Promise.all(clients.map((client) => client.end().catch(() => undefined)));
    for (const one of [mallory, peerLogin, serveLogin]) await one?.[Symbol.asyncDispose]();
    await world?.[Symbol.asyncDispose]();
  });

  it("cannot name a table of others, neither to lock it nor to queue for its lock", async () => {
    const tables = relations.filter(({ name, isView }) => !isView && name.split(".")[0] !== schema);
    expect(tables.length).toBeGreaterThan(30);
    const holder = await connected(world.url);
    await holder.query(`BEGIN; LOCK TABLE ${tables.map(({ name }) => name).join(", ")} IN ACCESS EXCLUSIVE MODE`);
    const client = await connected(mallory.url, "-c lock_timeout=1");
    const codes: [string, string][] = [];
    for (const table of tables) {
      for (const statement of [...weak.map((text) => `PREPARE mine AS ${text}`), ...strong]) {
        const text = named(statement, table);
        codes.push([text, await errorOf(client, text)]);
      }
    }
    await holder.query("ROLLBACK");
    expect(codes.filter(([, code]) => code !== denied)).toEqual([]);
  });

  it("delays none of those who enqueue, of peers or of relays whose tables it cannot name, with all locks that it can get and queue for", async () => {
    const mine = relations.filter(({ name, isView }) => isView || name.split(".")[0] === schema);
    const views = mine.filter(({ isView }) => isView);
    expect(views.length).toBe(13);

    // It holds all that it can get, until its transaction ends.
    const holder = await connected(mallory.url);
    await holder.query("BEGIN");
    const prepared: string[] = [];
    for (const [n, relation] of relations.entries()) {
      for (const [m, text] of weak.entries()) {
        const statement = named(text, relation);
        await holder.query("SAVEPOINT one");
        if ((await errorOf(holder, `PREPARE p${n}_${m} AS ${statement}`)) === "none") prepared.push(statement);
        else await holder.query("ROLLBACK TO one");
      }
    }
    for (const relation of mine) expect(prepared).toContain(named("SELECT FROM @", relation));
    expect(prepared).toContain("DELETE FROM hawser.topic_addr");
    // Functions that take a relation by its number look at no privilege either.
    await holder.query(
      `SELECT (SELECT count(*) FROM pg_partition_tree(c.oid)), CASE c.relkind WHEN 'S' THEN pg_sequence_last_value(c.oid) END
         FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname ~ '^hawser' AND c.relkind IN ('r', 'p', 'S')`,
    );

    // And it queues for each stronger lock that it is not refused at once, of its tables for the strongest.
    const prober = await connected(mallory.url, "-c lock_timeout=1");
    const queued: string[] = [];
    for (const relation of relations) {
      for (const text of relation.isView ? strong : strong.slice(0, 1)) {
        const statement = named(text, relation);
        if ((await errorOf(prober, statement)) === waitsForLock) queued.push(statement);
      }
    }
    for (const { name } of mine) expect(queued).toContain(`CREATE RULE mine AS ON INSERT TO ${name} DO ALSO NOTHING`);
    const waiting = await Promise.all(queued.map(() => connected(mallory.url)));
    const outcomes = queued.map((statement, n) => errorOf(waiting[n]!, statement));
    const waitingCount = async (): Promise<number> =>
      (
        await world.query<{ count: number }>(
          `SELECT count(*) FROM pg_stat_activity AS a WHERE a.usename = '${mallory.role}' AND pg_blocking_pids(a.pid) <> '{}'`,
        )
      )[0]!.count;
    await eventually("all of them wait", async () => (await waitingCount()) === queued.length);

    // Nobody else waits: what did would fail, since the locks are held until the end.
    const relay = await connected(serveLogin.url, "-c lock_timeout=5000");
    const rotate = async (): Promise<boolean> =>
      (await relay.query("SELECT rotated FROM hawser.outbox_rotate('one', 0)")).rows[0].rotated;
    for (const part of spared) {
      if (part === "peers") await peersGoOn();
      else {
        await serveGoesOn(relay);
        // The outbox grows meanwhile.
        expect(await rotate()).toBe(false);
      }
    }
    expect(await waitingCount()).toBe(queued.length);

    await holder.query("ROLLBACK");
    const refused = await Promise.all(outcomes);
    // Its own tables it may lock.
    if (schema === undefined) expect(refused.filter((code) => code === "none")).toEqual([]);
    if (spared.some((part) => part === "serve")) expect(await rotate()).toBe(true);
  });

  /** Peers start, send, and store, and what is enqueued for them is handled. */
  async function peersGoOn(): Promise<void> {
    const client = await connected(peerLogin.url, "-c lock_timeout=5000");
    await client.query("SELECT hawser.enqueue('b', 'enqueued')");
    await client.query("SELECT hawser.enqueue('later', 'x', deliver_at => now() + interval '1 day', key => 'k')");
    const [a, b] = ["a-1", "b-1"].map((name) => world.peer(name, { databaseUrl: peerLogin.url })) as [
      TestPeer,
      TestPeer,
    ];
    // By the operator, who is not in anybody's way.
    await world.list("b", "b-1", { durable: true });
    await a.record();
    await a.send("b", "stored");
    await b.record();
    await b.received.length(2);
    expect(b.texts.sort()).toEqual(["enqueued", "stored"]);
    await a.stop();
    await b.stop();
  }

  /** What is enqueued for NATS is relayed, and a process of `hawser serve` starts, leads, and looks for work. */
  async function serveGoesOn(relay: pg.Client): Promise<void> {
    await relay.query("SELECT hawser.enqueue('subject', 'x', stream => false)");
    await relay.query(
      "SELECT hawser.enqueue('subject', 'x', stream => false, deliver_at => now() + interval '1 day', key => 'k')",
    );
    const { turn, position } = await takeNats(relay, "one");
    await natsTurn(relay, "one", { turn: turn + 1n, position, mustSave: true });
    for (const statement of [
      "hawser.read_lead() AS l, hawser.take_lead('one', l.epoch, l.beat) AS t, hawser.raise_lead('one', t.epoch), hawser.keep_lead('one', t.epoch, '{}', true)",
      "hawser.applied_migrations()",
      "hawser.behind_sequences(false)",
      "hawser.bring_due(NULL, NULL)",
      "hawser.prune_handlers()",
      "hawser.drop_unsubscribed()",
      "hawser.follow_nats_server()",
      ...["executor_login", "nats_server", "nats_handlers", "saved_messages"].map(
        (name) => `hawser_bridge_data.${name}`,
      ),
    ])
      await relay.query(`SELECT FROM ${statement}`);
  }
});
