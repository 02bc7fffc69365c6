/** What a login with `hawser_viewer` alone can see, lock and fill. */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Login, login, outcomesOf } from "../installation/support/logins.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";

const secret = "s3cr3t";

/** Views and calls that give the viewer rows. */
const readable = [
  "hawser.audit_log",
  "hawser.bridge_lead",
  "hawser.bridge_work",
  "hawser.later_messages",
  "hawser.outbox_status",
  "hawser.schedule_status",
  "hawser.stream_status",
];
const callable = [
  ...["backlog", "dead_letter_counts", "outbox_undone", "peer_status", "queue_backlog", "samples", "take_sample"],
  "topic_status",
  "worker_status",
];
const calls = [
  "hawser.backlog(1000)",
  "hawser.dead_letter_counts(1000)",
  "hawser.outbox_undone(NULL, 1000, NULL)",
  "hawser.peer_status()",
  "hawser.queue_backlog(1000, '{}')",
  "hawser.samples('topic', '{}')",
  "hawser.take_sample()",
  "hawser.topic_status()",
  "hawser.worker_status()",
];

let database: TestDatabase;
let viewer: Login & AsyncDisposable;
beforeAll(async () => {
  database = await testDatabase();
  viewer = await login(database.url, "IN ROLE hawser_viewer");
  await onServer(
    database.url,
    "INSERT INTO hawser_peer_data.topics (topic, id) VALUES ('orders', 1)",
    "INSERT INTO hawser_peer_data.channels (channel_name, channel_id) VALUES ('shop-1:shop:orders-1', 1)",
    `INSERT INTO hawser_peer_data.stored_messages (channel_id, epoch, number, topic_id, payload, headers)
     VALUES (1, 1, 1, 1, '${secret}', '[["a","${secret}"]]')`,
    `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, headers, error_code, error_message, attempts, message_id, stack)
     VALUES ('queue', '@orders-1', 'orders', '${secret}', '[["a","${secret}"]]', 'handler_failed', 'no ${secret}', 1, '${secret}', '${secret}')`,
    `SELECT hawser.enqueue('orders', '${secret}', key => '${secret}', message_id => '${secret}', headers => '{"a": "${secret}"}',
                           deliver_at => now() + interval '1 day')`,
    `SELECT hawser.enqueue('orders', '${secret}', key => '${secret}', message_id => '${secret}', headers => '{"a": "${secret}"}')`,
    `SELECT hawser.enqueue('gone', '${secret}', key => '${secret}')`,
    `SELECT hawser.cancel_messages('peer', 'gone', '${secret}', NULL, 0, 10)`,
    `SELECT hawser.schedule('nightly', '0 3 * * *', 'orders', '${secret}', headers => '{"a": "${secret}"}', key => '${secret}')`,
  );
});
afterAll(async () => {
  await viewer?.[Symbol.asyncDispose]();
  await database?.drop();
});

describe("a login with hawser_viewer alone", () => {
  it("has these views and functions, and no other privilege on anything of Hawser", async () => {
    const relations = await rowsOf(
      database.url,
      `SELECT c.oid::regclass::text AS name, array_agg(p ORDER BY p) AS privileges
         FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS p
        WHERE n.nspname LIKE 'hawser%' AND c.relkind IN ('r', 'p', 'v') AND has_schema_privilege('${viewer.role}', n.oid, 'USAGE')
          AND (has_table_privilege('${viewer.role}', c.oid, p)
               OR p IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') AND has_any_column_privilege('${viewer.role}', c.oid, p))
        GROUP BY 1 ORDER BY 1`,
    );
    expect(relations).toEqual(readable.map((name) => ({ name, privileges: ["SELECT"] })));
    const functions = await rowsOf(
      database.url,
      `SELECT DISTINCT p.proname::text AS name FROM pg_proc AS p
        WHERE p.pronamespace = 'hawser'::regnamespace AND has_function_privilege('${viewer.role}', p.oid, 'EXECUTE') ORDER BY 1`,
    );
    const helpers = ["error_codes", "error_sqlstate", "header_excess", "list_excess", "refuse_argument"];
    expect(functions.map(({ name }) => String(name))).toEqual([...callable, ...helpers].toSorted());
    const [others] = await rowsOf(
      database.url,
      `SELECT (SELECT bool_or(has_schema_privilege('${viewer.role}', n.oid, 'USAGE')) FROM pg_namespace AS n WHERE n.nspname ~ '^hawser.*_data$') AS tables, has_schema_privilege('${viewer.role}', 'hawser', 'CREATE') AS creates,
              (SELECT count(*)::integer FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                WHERE n.nspname LIKE 'hawser%' AND CASE WHEN c.relkind = 'S' THEN has_sequence_privilege('${viewer.role}', c.oid, 'USAGE, SELECT, UPDATE') END) AS sequences`,
    );
    expect(others).toEqual({ tables: false, creates: false, sequences: 0 });
  });

  it("reads counts, names and ages everywhere, and no payload, header, key, id or message of an error", async () => {
    const client = new pg.Client({ connectionString: viewer.url });
    await client.connect();
    try {
      let rows = 0;
      for (const source of [...readable, ...calls]) {
        const found = (await client.query(`SELECT to_json(t)::text AS text FROM ${source} AS t`)).rows;
        rows += found.length;
        const text = found.map((row) => row.text).join("\n");
        expect(text, source).not.toContain(secret);
        expect(text, source).not.toContain(Buffer.from(secret).toString("hex"));
      }
      expect(rows).toBeGreaterThan(8);
      // A condition that sees what the view leaves out would betray it.
      await client.query(
        "CREATE FUNCTION pg_temp.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$",
      );
      const notices: string[] = [];
      client.on("notice", ({ message }) => notices.push(message ?? ""));
      await client.query(
        "SELECT FROM hawser.later_messages AS s WHERE pg_temp.leak(s.key) AND pg_temp.leak(s.message_id)",
      );
      expect(notices).toEqual(["<NULL>", ""]);
      const backlog = "SELECT topic, sender, messages, state FROM hawser.backlog(10) ORDER BY sender";
      expect((await client.query(backlog)).rows).toEqual([
        { topic: "orders", sender: "shop-1", messages: "1", state: "unserved" },
        { topic: "orders", sender: null, messages: "1", state: "unserved" },
      ]);
    } finally {
      await client.end();
    }
    // The one who may read messages sees what the view is for.
    await using peer = await login(database.url, "IN ROLE hawser_peer");
    expect(await rowsOf(peer.url, "SELECT key, message_id FROM hawser.later_messages")).toEqual([
      { key: secret, message_id: secret },
    ]);
  });

  it("locks nothing that others wait for, while its transaction stays open", async () => {
    const client = new pg.Client({ connectionString: viewer.url });
    await client.connect();
    try {
      await client.query("BEGIN");
      for (const source of [...readable, ...calls]) await client.query(`SELECT FROM ${source} AS t`);
      const { rows } = await client.query(
        "SELECT DISTINCT locktype, mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype <> 'virtualxid'",
      );
      expect(rows).toEqual([{ locktype: "relation", mode: "AccessShareLock" }]);
    } finally {
      await client.end();
    }
  });

  it("changes and fills nothing, and can make no call count without end", async () => {
    const outcomes = await outcomesOf(viewer.url, [
      "SELECT FROM hawser_peer_data.stored_messages",
      "SELECT FROM hawser.conn_messages",
      "SELECT FROM hawser_peer_data.mesh_secret",
      "DO $$ BEGIN LOCK TABLE hawser.outbox_status IN ROW EXCLUSIVE MODE; END $$",
      "SELECT FROM hawser.stream_status FOR UPDATE",
      "INSERT INTO hawser.topic_addr VALUES ('t', 'a:1', 'l')",
      "UPDATE hawser.topic_addr SET addr = 'a:1'",
      "SELECT hawser.enqueue('orders', 'x')",
      "SELECT hawser.schedule('other', '0 3 * * *', 'orders', 'x')",
      "SELECT hawser.cancel(1)",
      "SELECT hawser.discard_dead_letters(ARRAY[1])",
      "CREATE VIEW hawser.mine AS SELECT 1",
    ]);
    expect(outcomes.filter(([, code]) => !["42501", "42883"].includes(code))).toEqual([]);
    const refused = await outcomesOf(viewer.url, [
      "SELECT FROM hawser.backlog(NULL)",
      "SELECT FROM hawser.backlog(2000000000)",
      "SELECT FROM hawser.dead_letter_counts(0)",
    ]);
    expect(refused.map(([, code]) => code)).not.toContain("none");
  });
});
