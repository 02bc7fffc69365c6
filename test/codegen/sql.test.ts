/**
 * The generated SQL on a real Postgres: that of the shop in `golden/`, which has one of everything, and the store's.
 */
import { readFileSync } from "node:fs";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { peerFunctionsSql, peerGrantsSql, peerSchemaSql, peerTablesSql } from "../../generated/ts/sql/peer-schema.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { shopFunctionsSql, shopGrantsSql, shopSchemaSql } from "./golden/ts/sql/shop-schema.js";

const open: (TestDatabase | pg.Client)[] = [];

afterAll(async () => {
  for (const one of open.reverse()) {
    await (one instanceof pg.Client ? one.end() : one.drop());
  }
});

async function freshDatabase(): Promise<{ client: pg.Client; url: string }> {
  const database = await testDatabase({ migrated: false });
  open.push(database);
  return { client: await connect(database.url), url: database.url };
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  open.push(client);
  return client;
}

describe("the files and the TypeScript modules", () => {
  it("hold the same SQL", () => {
    const file = (path: string) => readFileSync(new URL(`../../generated/sql/${path}`, import.meta.url), "utf8");
    expect(withoutHead(file("peer/schema.sql"))).toBe(peerSchemaSql);
    expect(withoutHead(file("peer/grants.sql"))).toBe(peerGrantsSql);
  });
});

describe("a table", () => {
  let client: pg.Client;
  beforeAll(async () => {
    ({ client } = await freshDatabase());
    await client.query(shopSchemaSql);
    await client.query(shopGrantsSql);
  });

  it("has its first rows, defaults and generated values", async () => {
    const { rows } = await client.query("SELECT shop, number, state, open_amount, items, priority FROM hawser.orders");
    expect(rows).toEqual([{ shop: "main", number: 1, state: "open", open_amount: "0", items: ["a"], priority: 7 }]);
  });

  it("has constraints whose names say table, column and rule", async () => {
    const { rows } = await client.query(
      "SELECT conname FROM pg_constraint WHERE conrelid = 'hawser.orders'::regclass AND contype IN ('c', 'p', 'u') ORDER BY 1",
    );
    expect(rows.map(({ conname }) => conname)).toEqual([
      "orders_digest_bytes",
      "orders_items_items",
      "orders_number_range",
      "orders_paid_at_most_total",
      "orders_paid_range",
      "orders_pkey",
      "orders_priority_range",
      "orders_reference_key",
      "orders_shop_bytes",
      "orders_shop_pattern",
      "orders_state_values",
      "orders_total_range",
    ]);
  });

  it.each([
    ["a number below 0 in an unsigned column", { number: -1 }, "orders_number_range"],
    ["too many items", { items: ["a", "b", "c", "d"] }, "orders_items_items"],
    ["a state that is not listed", { state: "won't" }, "orders_state_values"],
    ["a shop against the pattern", { shop: "o'k" }, "orders_shop_pattern"],
    ["a digest that is too long", { digest: Buffer.alloc(5) }, "orders_digest_bytes"],
    ["a row against a check of several columns", { paid: 2 }, "orders_paid_at_most_total"],
  ])("refuses %s", async (_, change, constraint) => {
    await expect(insertOrder(client, change)).rejects.toMatchObject({ constraint });
  });

  it("takes NULL where a column is optional, and nowhere else", async () => {
    await insertOrder(client, { number: 2, note: null, paid_at: null });
    await expect(insertOrder(client, { number: 3, digest: null })).rejects.toMatchObject({ code: "23502" });
  });

  it("keeps the spec's comments", async () => {
    const { rows } = await client.query(
      `SELECT obj_description('hawser.orders'::regclass) AS table, col_description('hawser.orders'::regclass, 5) AS total,
        obj_description('hawser.open_orders()'::regprocedure) AS function`,
    );
    expect(rows).toEqual([
      {
        table: `The orders, "open" and closed. It's a test of \`quotes\` and \${braces}, too: */ done.`,
        total: "In cents.",
        function: "The open orders of some shops.",
      },
    ]);
  });
});

describe("a channel", () => {
  it("is told of each row that is inserted, updated, renamed and deleted", async () => {
    const { client } = await freshDatabase();
    await client.query(shopSchemaSql);
    const told: unknown[] = [];
    client.on("notification", ({ channel, payload }) => told.push([channel, JSON.parse(payload!)]));
    await client.query("LISTEN shop_orders");
    await insertOrder(client, { number: 5 });
    await client.query("UPDATE hawser.orders SET state = 'won''t pay' WHERE number = 5");
    await client.query("UPDATE hawser.orders SET number = 6 WHERE number = 5");
    await client.query("DELETE FROM hawser.orders WHERE number = 6");
    // Notifications come before the answer to the next query.
    await client.query("SELECT 1");
    expect(told).toEqual([
      ["shop_orders", { operation: "insert", shop: "s", number: 5 }],
      ["shop_orders", { operation: "update", shop: "s", number: 5 }],
      ["shop_orders", { operation: "delete", shop: "s", number: 5 }],
      ["shop_orders", { operation: "update", shop: "s", number: 6 }],
      ["shop_orders", { operation: "delete", shop: "s", number: 6 }],
    ]);
  });

  it("is told of the longest row that the rules let in", async () => {
    const { client } = await freshDatabase();
    await client.query(peerTablesSql);
    const values = ['"'.repeat(255), "\u0001".repeat(512), "\\".repeat(255)];
    await client.query("INSERT INTO hawser.topic_addr (topic, addr, client_name) VALUES ($1, $2, $3)", values);
  });
});

describe("functions", () => {
  it("pin their search_path, whether definer or not, and the trigger's too, and have the settings of the spec", async () => {
    const { client } = await freshDatabase();
    await client.query(shopSchemaSql);
    const { rows } = await client.query(
      `SELECT proname, prosecdef, proconfig FROM pg_proc WHERE pronamespace = 'hawser'::regnamespace ORDER BY 1`,
    );
    expect(rows).toHaveLength(5);
    for (const { proname, prosecdef, proconfig } of rows) {
      const settings = proname === "open_orders" ? ["enable_seqscan=off"] : [];
      expect(proconfig, proname).toEqual(["search_path=pg_catalog, pg_temp", ...settings]);
      expect(prosecdef, proname).toBe(proname === "open_orders");
    }
  });

  it("are replaced by a second run", async () => {
    const { client } = await freshDatabase();
    await client.query(shopSchemaSql);
    await client.query(shopFunctionsSql);
  });
});

describe("grants", () => {
  it("leave nothing to PUBLIC in the store", async () => {
    const { client } = await freshDatabase();
    await client.query(peerSchemaSql);
    await client.query(peerGrantsSql);
    const { rows } = await client.query(
      `SELECT relname AS name FROM pg_class, aclexplode(relacl) AS a
        WHERE relnamespace = 'hawser'::regnamespace AND a.grantee = 0
       UNION ALL SELECT proname FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) AS a
        WHERE pronamespace = 'hawser'::regnamespace AND a.grantee = 0
       UNION ALL SELECT nspname FROM pg_namespace, aclexplode(nspacl) AS a WHERE nspname = 'hawser' AND a.grantee = 0`,
    );
    expect(rows).toEqual([]);
  });

  it("give hawser_owner everything and hawser_peer what the spec says", async () => {
    const { client } = await freshDatabase();
    await client.query(peerSchemaSql);
    await client.query(peerGrantsSql);
    const { rows: owners } = await client.query(
      `SELECT DISTINCT relowner::regrole::text AS owner FROM pg_class WHERE relnamespace = 'hawser'::regnamespace
       UNION SELECT proowner::regrole::text FROM pg_proc WHERE pronamespace = 'hawser'::regnamespace
       UNION SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'hawser'`,
    );
    expect(owners).toEqual([{ owner: "hawser_owner" }]);
    await client.query("SET ROLE hawser_peer");
    await client.query("INSERT INTO hawser.topic_addr (topic, addr, client_name) VALUES ('t', 'a:1', 'n')");
    await client.query("SELECT * FROM hawser.key_of_topic('t')");
    await expect(client.query("DELETE FROM hawser.peers")).rejects.toMatchObject({ code: "42501" });
    await expect(client.query("UPDATE hawser.mesh_secret SET id = 2")).rejects.toMatchObject({ code: "42501" });
  });

  it("may be limited to columns", async () => {
    const { client } = await freshDatabase();
    await client.query(shopSchemaSql);
    await client.query(shopGrantsSql);
    await client.query("SET ROLE hawser_bridge");
    await client.query("UPDATE hawser.orders SET paid = 0");
    await expect(client.query("UPDATE hawser.orders SET total = 0")).rejects.toMatchObject({ code: "42501" });
  });

  it("do what a user without further rights may do, twice, and say what is left out", async () => {
    const { client: admin, url } = await freshDatabase();
    const user = `hawser_test_${process.pid}_plain`;
    await admin.query(`CREATE ROLE ${user} LOGIN PASSWORD 'plain'`);
    try {
      await admin.query(`GRANT CREATE ON DATABASE ${new URL(url).pathname.slice(1)} TO ${user}`);
      await admin.query(`SET ROLE ${user}`);
      const notices: string[] = [];
      admin.on("notice", ({ message }) => notices.push(message ?? ""));
      await admin.query(peerSchemaSql);
      await admin.query(peerGrantsSql);
      await admin.query(peerFunctionsSql);
      await admin.query(peerGrantsSql);
      expect(notices.join("\n")).toMatch(/goes on owning it|may not make it/);
      const { rows } = await admin.query("SELECT epoch > 0 AS taken FROM hawser.take_name('n')");
      expect(rows).toEqual([{ taken: true }]);
    } finally {
      await admin.query("RESET ROLE");
      await admin.query(`DROP OWNED BY ${user}`);
      await admin.query(`DROP ROLE ${user}`);
    }
  });
});

async function insertOrder(client: pg.Client, change: Record<string, unknown>): Promise<void> {
  const order = {
    shop: "s",
    number: 9,
    total: 1,
    paid: 0,
    items: ["a"],
    digest: Buffer.of(1),
    gift: false,
    priority: 1,
    ...change,
  };
  const places = Object.keys(order).map((_, position) => `$${position + 1}`);
  const sql = `INSERT INTO hawser.orders (${Object.keys(order).join(", ")}) VALUES (${places.join(", ")})`;
  await client.query(sql, Object.values(order));
}

function withoutHead(sql: string): string {
  return sql.slice(sql.indexOf("\n\n") + 2);
}
