/**
 * Clients of the transactions of other libraries, with these libraries, and the programs of docs/orms.md.
 */
import { PrismaPg } from "@prisma/adapter-pg";
import { sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/node-postgres";
import type { PgDatabase, PgQueryResultHKT } from "drizzle-orm/pg-core";
import { drizzle as drizzleOnPostgresJs } from "drizzle-orm/postgres-js";
import knex, { type Knex } from "knex";
import {
  CamelCasePlugin,
  type ControlledTransaction,
  type Dialect,
  Kysely,
  ParseJSONResultsPlugin,
  PostgresDialect,
} from "kysely";
import { PostgresJSDialect } from "kysely-postgres-js";
import pg from "pg";
import postgres from "postgres";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { postgresErrorOf, rowsOf } from "../../src/foundation/sql-clients/index.js";
import {
  cancel,
  enqueue,
  enqueueBatch,
  fromDrizzle,
  fromKnex,
  fromKysely,
  fromPrisma,
  job,
  pauseTopic,
  resumeTopic,
  type SqlClient,
} from "../../src/jobs-and-peers/peer/index.js";
import { natsSql } from "../../src/nats/client/index.js";
import { readPage } from "../readme/pages.js";
import { filesOf } from "../readme/snippets.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf as rowsIn } from "../support/on-server.js";
import { PrismaClient } from "./prisma-client.mjs";
import { expectRowAndMessage } from "./support/page-programs.js";

/** A transaction in a library: what it does there, and the client that it is. */
interface Transaction {
  readonly client: SqlClient;
  /** Inserts a row in the library's own way. */
  insert(id: number): PromiseLike<unknown>;
  /** Does some of it behind a savepoint, to which it is rolled back if the work throws. */
  nested(work: (inner: Transaction) => Promise<void>): Promise<void>;
}

/** Runs a transaction, which is rolled back if the work throws. */
type Transact = (work: (transaction: Transaction) => Promise<void>) => Promise<void>;

interface Library {
  readonly transact: Transact;
  /** The client of what is in no transaction. */
  readonly client: SqlClient;
  end(): Promise<unknown>;
}

function onDrizzle(db: PgDatabase<PgQueryResultHKT>, end: () => Promise<unknown>): Library {
  const of = (tx: PgDatabase<PgQueryResultHKT>): Transaction => ({
    client: fromDrizzle(tx, sql),
    insert: (id) => tx.execute(sql`INSERT INTO orders VALUES (${id})`),
    nested: (work) => tx.transaction((inner) => work(of(inner))),
  });
  return { transact: (work) => db.transaction((tx) => work(of(tx))), client: fromDrizzle(db, sql), end };
}

function onKysely(dialect: Dialect): Library {
  interface Tables {
    orders: { id: number };
  }
  const plugins = [new CamelCasePlugin(), new ParseJSONResultsPlugin()];
  const db = new Kysely<Tables>({ dialect, plugins });
  const of = (trx: ControlledTransaction<Tables, string[]>): Transaction => ({
    client: fromKysely(trx),
    insert: (id) => trx.insertInto("orders").values({ id }).execute(),
    async nested(work) {
      const inner = await trx.savepoint("inner").execute();
      try {
        await work(of(inner as ControlledTransaction<Tables, string[]>));
      } catch (error) {
        await inner.rollbackToSavepoint("inner").execute();
        throw error;
      }
    },
  });
  const transact: Transact = async (work) => {
    const trx = await db.startTransaction().execute();
    try {
      await work(of(trx as ControlledTransaction<Tables, string[]>));
      await trx.commit().execute();
    } catch (error) {
      await trx.rollback().execute();
      throw error;
    }
  };
  return { transact, client: fromKysely(db), end: () => db.destroy() };
}

const libraries: Readonly<Record<string, (url: string) => Library>> = {
  "Drizzle on node-postgres": (url) => {
    const db = drizzle(url);
    return onDrizzle(db, () => db.$client.end());
  },
  "Drizzle on Postgres.js": (url) => {
    const db = drizzleOnPostgresJs(url);
    return onDrizzle(db, () => db.$client.end());
  },
  "Kysely on node-postgres": (url) => onKysely(new PostgresDialect({ pool: new pg.Pool({ connectionString: url }) })),
  "Kysely on Postgres.js": (url) => onKysely(new PostgresJSDialect({ postgres: postgres(url) })),
  Knex: (url) => {
    const db = knex({ client: "pg", connection: url });
    const of = (trx: Knex.Transaction): Transaction => ({
      client: fromKnex(trx),
      insert: (id) => trx("orders").insert({ id }),
      nested: (work) => trx.transaction((inner) => work(of(inner))),
    });
    return {
      transact: (work) => db.transaction((trx) => work(of(trx))),
      client: fromKnex(db),
      end: () => db.destroy(),
    };
  },
  Prisma: (url) => {
    const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: url }) });
    type Tx = Parameters<Parameters<typeof prisma.$transaction>[0]>[0];
    const of = (tx: Tx): Transaction => ({
      client: fromPrisma(tx),
      insert: (id) => tx.$executeRaw`INSERT INTO orders VALUES (${id})`,
      nested: (work) => tx.$transaction((inner) => work(of(inner))),
    });
    return {
      transact: (work) => prisma.$transaction((tx) => work(of(tx))),
      client: fromPrisma(prisma),
      end: () => prisma.$disconnect(),
    };
  },
};

const instant = new Date("2026-07-01T10:20:30.456Z");
const text = `it's "$1" ? ?? :a \\ {,}`;

/** A value of each type, in each form that is passed. */
const values: readonly (readonly [type: string, value: unknown])[] = [
  ["text", text],
  ["text", null],
  ["text[]", [text, "NULL", "", null]],
  ["boolean", true],
  ["integer", 17],
  ["bigint", "9007199254740993"],
  ["bytea", Buffer.from([0, 255, 92])],
  ["bytea", new Uint8Array([1, 0, 255, 2]).subarray(1, 3)],
  ["bytea", null],
  ["bytea[]", [Buffer.from([0, 255, 92]), new Uint8Array(), null]],
  ["timestamptz", instant],
  ["timestamptz", instant.toISOString()],
  ["timestamptz", null],
  ["text::jsonb", JSON.stringify({ a: [text] })],
  ["text::json", JSON.stringify("text")],
  ["text[]::jsonb[]", [JSON.stringify({ a: 1 }), "null"]],
];

describe.each(Object.keys(libraries))("%s", (name) => {
  let database: TestDatabase;
  let library: Library;
  beforeAll(async () => {
    database = await testDatabase();
    await onServer(
      database.url,
      "CREATE TABLE orders (id integer)",
      // A time without its zone would be another one.
      `ALTER DATABASE ${database.name} SET TimeZone = 'America/New_York'`,
    );
    library = libraries[name]!(database.url);
  });
  beforeEach(() => onServer(database.url, "TRUNCATE hawser_data.outbox, hawser_data.queue"));
  afterAll(async () => {
    await library?.end();
    // A pool says that it has ended before its connections have.
    await eventually("all connections have ended", async () => {
      const others = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
      return (await rowsIn(database.url, others)).length === 0;
    });
    await database?.drop();
  });

  const orders = async () => (await rowsIn(database.url, "SELECT id FROM orders ORDER BY id")).map(({ id }) => id);
  const enqueued = async () =>
    (await rowsIn(database.url, "SELECT encode(payload, 'escape') AS p FROM hawser_data.outbox ORDER BY id")).map(
      ({ p }) => p,
    );
  const subject = "orders.placed";

  it("commits and rolls back row and message together", async () => {
    await library.transact(async ({ client, insert }) => {
      await insert(1);
      const payload = { id: "it's $1, :a?" };
      expect(await enqueue(client, { subject, stream: true }, payload, { headers: { A: ["1", "2"] } })).toBeTypeOf(
        "bigint",
      );
      const payloads = ['a "b", {c}', "\\d", Buffer.from([0, 255])];
      const ids = await enqueueBatch(client, { subject }, payloads, { key: "k" });
      expect(ids.map((id) => typeof id)).toEqual(["bigint", "bigint", "bigint"]);
    });
    const rolledBack = library.transact(async ({ client, insert }) => {
      await insert(2);
      await enqueue(client, { subject }, "never");
      throw new Error("changed my mind");
    });
    await expect(rolledBack).rejects.toThrow("changed my mind");
    expect(await orders()).toEqual([1]);
    expect(await enqueued()).toEqual([`{"id":"it's $1, :a?"}`, 'a "b", {c}', "\\\\d", "\\000\\377"]);
  });

  it("accepts messages for peers and scheduled messages, which can be cancelled", async () => {
    const deliverAt = new Date(Date.now() + 3_600_000);
    await library.transact(async ({ client }) => {
      await enqueue(client, "warehouse", Buffer.from([0, 255]), { headers: { A: "1" }, key: "k", all: true });
      await enqueue(client, "warehouse", "later", { deliverAt });
      await enqueue(client, { subject }, "later", { deliverAt });
      const id = await enqueue(client, "warehouse", "never", { deliverAt });
      const behind = await enqueue(client, "warehouse", "never", { after: [id, id] });
      expect(await cancel(client, behind)).toBe("cancelled");
      expect([await cancel(client, id), await cancel(client, id)]).toEqual(["cancelled", "not_waiting"]);
    });
    const rows = await rowsIn(
      database.url,
      "SELECT topic AS destination, due_at AS deliver_at, CASE WHEN later IS NULL THEN payload END AS payload FROM hawser_data.queue ORDER BY later IS NULL, id",
    );
    expect(rows).toEqual([
      { destination: "warehouse", deliver_at: deliverAt, payload: null },
      { destination: subject, deliver_at: deliverAt, payload: null },
      { destination: "warehouse", deliver_at: null, payload: Buffer.from([0, 255]) },
    ]);
  });

  it("reads the state of a message and of a topic", () => readsState(library));

  it("passes values of all types as node-postgres does", async () => {
    const each = "SELECT ($1::TYPE)::text AS value";
    await using connection = await connected(database.url);
    await library.transact(async ({ client }) => {
      for (const [type, value] of values) {
        const statement = each.replace("TYPE", type);
        const { rows: wanted } = await connection.query(statement, [value]);
        expect([type, rowsOf(await client.query(statement, [value]))]).toEqual([type, wanted]);
      }
    });
  });

  it("preserves parameter numbers, quoted text, and column names", async () => {
    const statement =
      `SELECT $2::text || $10::text || $1::text || $2::text || $3::text || $4::text || $5::text || $6::text || $7::text` +
      ` || $8::text || $9::text AS some_parameters, '$1 ? ''$2''' AS "a?b$1", '{"a":1}'::jsonb ? 'a' AS "hasKey",` +
      ` '{"a":1}' AS some_json, '5'::bigint AS big, '{1,2}'::bigint[] AS "bigs"`;
    await library.transact(async ({ client }) => {
      const letters = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
      const rows = rowsOf(await client.query(statement, letters));
      expect(rows.map((row) => ({ ...row, big: BigInt(row["big"] as string) }))).toEqual([
        {
          some_parameters: "bjabcdefghi",
          "a?b$1": "$1 ? '$2'",
          hasKey: true,
          some_json: '{"a":1}',
          big: 5n,
          bigs: expect.anything(),
        },
      ]);
      expect((rows[0]!["bigs"] as string[]).map(BigInt)).toEqual([1n, 2n]);
    });
  });

  it("passes on the function's own error", async () => {
    const refused = library.transact(async ({ client }) => {
      await natsSql(client).unsubscribeStream("a".repeat(1025));
    });
    await expect(refused).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringMatching(/^(SELECT .* - )?nats_unsubscribe_stream: the argument name is 1025 bytes/),
      remedy: expect.stringContaining("Give an argument that obeys the rule"),
    });
  });

  it.each([
    ["22012", "SELECT 1 / 0", /division by zero/],
    ["42883", "SELECT hawser.no_such_function()", /does not exist/],
    // Prisma tells this one by words of its own.
    ["40001", "DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$", /again/],
  ])("passes on the SQLSTATE %s", async (code, statement, message) => {
    const failed = library.transact(async ({ client }) => void (await client.query(statement, [])));
    const error = await failed.catch((reason: unknown) => reason);
    expect(postgresErrorOf(error)).toMatchObject({ code, message: expect.stringMatching(message) });
  });

  it("lets enqueue report that the outbox is missing", async () => {
    const failed = library.transact(async ({ client }) => {
      await client.query("ALTER SCHEMA hawser RENAME TO away", []);
      await enqueue(client, "warehouse", "x");
    });
    await expect(failed).rejects.toMatchObject({ code: "schema_missing", cause: expect.anything() });
  });

  it("rolls back to a savepoint", async () => {
    const before = await enqueued();
    await library.transact(async ({ client, nested }) => {
      await enqueue(client, { subject }, "outer");
      const inner = nested(async (savepoint) => {
        await enqueue(savepoint.client, { subject }, "inner");
        throw new Error("not this");
      });
      await expect(inner).rejects.toThrow("not this");
    });
    expect((await enqueued()).slice(before.length)).toEqual(["outer"]);
  });

  it("commits at once without a transaction", async () => {
    const before = await enqueued();
    await enqueue(library.client, { subject }, "at once");
    expect((await enqueued()).slice(before.length)).toEqual(["at once"]);
  });
});

/** Expects values of the documented types in what is read by a client of a library. */
async function readsState(library: Library): Promise<void> {
  const deliverAt = new Date(Date.now() + 3_600_000);
  await library.transact(async ({ client }) => {
    const id = await enqueue(client, "warehouse", { a: 1 }, { deliverAt, priority: 30_000, keepMs: 1_000 });
    const found = await job(client, id);
    expect(found).toMatchObject({ state: "later", topic: "warehouse", attempts: 0, dueAt: deliverAt });
    expect(found.enqueuedAt).toBeInstanceOf(Date);
    expect(await pauseTopic(client, "warehouse")).toMatchObject({ pausedAt: expect.any(Date), changed: true });
    expect(await resumeTopic(client, "warehouse")).toBe(true);
    expect(await cancel(client, id)).toBe("cancelled");
  });
}

describe("libraries that rename columns or parse values", () => {
  let database: TestDatabase;
  beforeAll(async () => {
    database = await testDatabase();
  });
  afterAll(() => database.drop());

  const camel = (name: string) => name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
  const camelRow = (row: object) =>
    Object.fromEntries(Object.entries(row).map(([name, value]) => [camel(name), value]));

  it("Postgres.js with its transform, on Drizzle", async () => {
    const db = drizzleOnPostgresJs(
      postgres(database.url, { transform: postgres.camel, types: { bigint: postgres.BigInt } }),
    );
    await readsState(onDrizzle(db, () => db.$client.end()));
    await db.$client.end();
  });

  it("Knex with postProcessResponse", async () => {
    const db = knex({
      client: "pg",
      connection: database.url,
      postProcessResponse: (result) => ({ ...result, rows: result.rows?.map(camelRow) }),
    });
    const transact: Transact = (work) =>
      db.transaction((trx) => work({ client: fromKnex(trx), insert: undefined as never, nested: undefined as never }));
    await readsState({ transact, client: fromKnex(db), end: () => db.destroy() });
    await db.destroy();
  });

  it("node-postgres with parsers of texts, and results in binary", async () => {
    const types = { getTypeParser: () => (value: unknown) => String(value) } as unknown as pg.CustomTypesConfig;
    const client = new pg.Client({ connectionString: database.url, types, ...{ binary: true } });
    await client.connect();
    await readsState({
      transact: (work) => work({ client } as unknown as Transaction),
      client,
      end: () => client.end(),
    });
    await client.end();
  });
});

describe("the programs of docs/orms.md", () => {
  const programs = filesOf(readPage("docs/orms.md"));

  it("are one for each library", () => {
    expect(programs.map(({ name }) => name)).toEqual(["drizzle.ts", "kysely.ts", "knex.ts", "prisma.ts"]);
  });

  it.for(programs.filter(({ name }) => name === "drizzle.ts"))("$name writes a row and a message", expectRowAndMessage);
});

async function connected(connectionString: string): Promise<pg.Client & AsyncDisposable> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  return Object.assign(client, { [Symbol.asyncDispose]: () => client.end() });
}
