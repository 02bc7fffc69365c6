/**
 * The clients that docs/transactional.md makes of the transactions of other libraries, with these libraries.
 */
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { transform } from "esbuild";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { enqueue, enqueueBatch, type SqlClient } from "../../src/peer/index.js";
import { readPage } from "../readme/pages.js";
import { filesOf } from "../readme/snippets.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { projectDirectory } from "../support/program.js";

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
  end(): Promise<unknown>;
}

/** Types are checked where the page is. */
// biome-ignore lint/suspicious/noExplicitAny: see above
type Untyped = any;
const load = async (name: string): Promise<Untyped> => await import(name);

const libraries: Readonly<Record<string, (url: string, clientOf: (tx: Untyped) => SqlClient) => Promise<Library>>> = {
  async drizzle(url, clientOf) {
    const [{ sql }, { drizzle }] = [await load("drizzle-orm"), await load("drizzle-orm/node-postgres")];
    const db = drizzle(url);
    const of = (tx: Untyped): Transaction => ({
      client: clientOf(tx),
      insert: (id) => tx.execute(sql`INSERT INTO orders VALUES (${id})`),
      nested: (work) => tx.transaction((inner: Untyped) => work(of(inner))),
    });
    return { transact: (work) => db.transaction((tx: Untyped) => work(of(tx))), end: () => db.$client.end() };
  },
  async kysely(url, clientOf) {
    const [{ Kysely, PostgresDialect }, { default: pg }] = [await load("kysely"), await load("pg")];
    const db = new Kysely({ dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: url }) }) });
    const of = (trx: Untyped): Transaction => ({
      client: clientOf(trx),
      insert: (id) => trx.insertInto("orders").values({ id }).execute(),
      async nested(work) {
        const inner = await trx.savepoint("inner").execute();
        try {
          await work(of(inner));
        } catch (error) {
          await inner.rollbackToSavepoint("inner").execute();
          throw error;
        }
      },
    });
    const transact: Transact = async (work) => {
      const trx = await db.startTransaction().execute();
      try {
        await work(of(trx));
        await trx.commit().execute();
      } catch (error) {
        await trx.rollback().execute();
        throw error;
      }
    };
    return { transact, end: () => db.destroy() };
  },
  async knex(url, clientOf) {
    const { default: knex } = await load("knex");
    const db = knex({ client: "pg", connection: url });
    const of = (trx: Untyped): Transaction => ({
      client: clientOf(trx),
      insert: (id) => trx("orders").insert({ id }),
      nested: (work) => trx.transaction((inner: Untyped) => work(of(inner))),
    });
    return { transact: (work) => db.transaction((trx: Untyped) => work(of(trx))), end: () => db.destroy() };
  },
  async prisma(url, clientOf) {
    const [{ PrismaPg }, { PrismaClient }] = [await load("@prisma/adapter-pg"), await load("./prisma-client.mjs")];
    const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: url }) });
    const of = (tx: Untyped): Transaction => ({
      client: clientOf(tx),
      insert: (id) => tx.$executeRaw`INSERT INTO orders VALUES (${id})`,
      nested: (work) => tx.$transaction((inner: Untyped) => work(of(inner))),
    });
    return {
      transact: (work) => prisma.$transaction((tx: Untyped) => work(of(tx))),
      end: () => prisma.$disconnect(),
    };
  },
};

const files = filesOf(readPage("docs/transactional.md"));

it("are of all these libraries", () => {
  expect(files.map(({ name }) => name)).toEqual(Object.keys(libraries).map((name) => `${name}.ts`));
});

describe.each(Object.keys(libraries))("%s", (name) => {
  let database: TestDatabase;
  let library: Library;
  /** Where the file of the page is, which finds the libraries. */
  let directory: string;
  beforeAll(async () => {
    database = await testDatabase();
    await rowsOf(database.url, "CREATE TABLE orders (id integer)");
    const { content } = files.find((file) => file.name === `${name}.ts`)!;
    directory = mkdtempSync(join(tmpdir(), "hawser-adapters-"));
    symlinkSync(join(projectDirectory, "node_modules"), join(directory, "node_modules"));
    const file = join(directory, "client.mjs");
    writeFileSync(file, (await transform(content, { loader: "ts", target: "node20" })).code);
    const { clientOf } = await load(pathToFileURL(file).href);
    library = await libraries[name]!(database.url, clientOf);
  });
  afterAll(async () => {
    await library?.end();
    // A pool says that it has ended before its connections have.
    await eventually("all connections have ended", async () => {
      const others = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
      return (await rowsOf(database.url, others)).length === 0;
    });
    await database?.drop();
    rmSync(directory, { recursive: true, force: true });
  });

  const orders = async () => (await rowsOf(database.url, "SELECT id FROM orders ORDER BY id")).map(({ id }) => id);
  const enqueued = async () =>
    (
      await rowsOf(database.url, "SELECT encode(payload, 'escape') AS p FROM hawser.outbox WHERE slot < 3 ORDER BY id")
    ).map(({ p }) => p);
  const subject = "orders.placed";

  it("commits and rolls back row and message together", async () => {
    await library.transact(async ({ client, insert }) => {
      await insert(1);
      const headers = { A: ["1", "2"] };
      expect(await enqueue(client, { subject, stream: true }, { id: "it's $1, :a?" }, { headers })).toBeTypeOf(
        "bigint",
      );
      await enqueueBatch(client, { subject }, ['a "b", {c}', "\\d"], { key: "k" });
      await enqueue(client, { subject }, Buffer.from([0, 255]));
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

  it("takes messages for peers, and such that are due later", async () => {
    const deliverAt = new Date(Date.now() + 3_600_000);
    await library.transact(async ({ client }) => {
      const options = { headers: { A: "1" }, key: "k" };
      expect(await enqueue(client, "warehouse", Buffer.from([0, 255]), options)).toBeTypeOf("bigint");
      await enqueue(client, { subject }, "later", { deliverAt });
    });
    const rows = await rowsOf(
      database.url,
      "SELECT destination, deliver_at, NULL AS payload FROM hawser.outbox_later UNION ALL SELECT destination, NULL, payload FROM hawser.outbox WHERE slot > 2",
    );
    expect(rows).toEqual([
      { destination: subject, deliver_at: deliverAt, payload: null },
      { destination: "warehouse", deliver_at: null, payload: Buffer.from([0, 255]) },
    ]);
  });

  it("passes on the function's own error", async () => {
    const refused = library.transact(async ({ client }) => {
      await enqueue(client, { subject }, "x", { deliverAt: new Date("2999-01-01") });
    });
    await expect(refused).rejects.toThrow(/the argument deliver_at is 2999-01-01 .*, and must be within|Failed query/);
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
});
