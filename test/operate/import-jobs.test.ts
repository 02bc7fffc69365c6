/** The import of another library's jobs: from tables that anybody may have made, with rows that no message can be made of. */
import pg from "pg";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { hawser } from "../cli/support/hawser.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";

const world = sharedPeerWorld();

/** Role without any grant, but that may create schemas. */
const mallory = `mallory_${process.pid}`;

beforeEach(async () => {
  await world.query(`CREATE ROLE ${mallory}`);
  await world.query(`CREATE TABLE public.stolen (role text)`);
  await world.query(`GRANT INSERT ON public.stolen TO ${mallory}`);
  await world.query(
    `DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO ${mallory}', current_database()); END $$`,
  );
});
afterEach(async () => {
  await world.query("DROP SCHEMA IF EXISTS pgboss CASCADE");
  await world.query("DROP TABLE public.stolen CASCADE");
  await world.query(`DROP OWNED BY ${mallory} CASCADE`);
  await world.query(`DROP ROLE ${mallory}`);
});

const imports = (...args: string[]) => hawser(["jobs", "import", "pg-boss", ...args], { databaseUrl: world.url });

/** Runs statements as a role. */
async function as(role: string, ...statements: string[]): Promise<void> {
  const client = new pg.Client({ connectionString: world.url });
  await client.connect();
  try {
    await client.query(`SET ROLE ${role}`);
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}

const columns = `id text, name text, priority integer DEFAULT 0, data jsonb, state text DEFAULT 'created', policy text,
  singleton_key text, start_after timestamptz DEFAULT now(), created_on timestamptz DEFAULT now()`;

/** A function that tells as whom it runs, and the row that its trigger returns. */
const thief = (name: string, returns: string, result: string, marks = "") =>
  `CREATE FUNCTION pgboss.${name} RETURNS ${returns} LANGUAGE plpgsql ${marks} AS $$
     BEGIN RESET ROLE; INSERT INTO public.stolen VALUES (current_user); RETURN ${result}; END $$`;

/** What another role can put in the place of the table, or at its table. */
const traps: readonly (readonly [what: string, ...statements: string[]])[] = [
  [
    "a view",
    thief("steal(text)", "text", "$1"),
    `CREATE TABLE pgboss.real (${columns})`,
    "INSERT INTO pgboss.real (id, name) VALUES ('1', 'mail')",
    `CREATE VIEW pgboss.job AS SELECT pgboss.steal(id) AS id, name, priority, data, state, policy, singleton_key, start_after, created_on
       FROM pgboss.real`,
  ],
  [
    "a trigger",
    `CREATE TABLE pgboss.job (${columns})`,
    thief("steal()", "trigger", "OLD"),
    "CREATE TRIGGER steal BEFORE DELETE ON pgboss.job FOR EACH ROW EXECUTE FUNCTION pgboss.steal()",
  ],
  [
    "a rule",
    `CREATE TABLE pgboss.job (${columns})`,
    thief("steal(text)", "text", "$1"),
    "CREATE RULE steal AS ON DELETE TO pgboss.job DO ALSO SELECT pgboss.steal(old.id)",
  ],
  [
    "a policy",
    `CREATE TABLE pgboss.job (${columns})`,
    thief("steal(text)", "boolean", "true"),
    "ALTER TABLE pgboss.job FORCE ROW LEVEL SECURITY",
    "CREATE POLICY steal ON pgboss.job USING (pgboss.steal(id))",
  ],
  [
    "an index whose expression is computed as soon as a statement is planned",
    `CREATE TABLE pgboss.job (${columns})`,
    "CREATE FUNCTION pgboss.harmless(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1'",
    "CREATE INDEX ON pgboss.job (pgboss.harmless('a'))",
    thief("steal(text)", "text", "$1"),
    "CREATE OR REPLACE FUNCTION pgboss.harmless(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN pgboss.steal($1); END'",
  ],
  [
    "a type that is cast to text",
    "CREATE TYPE pgboss.state AS (state text)",
    thief("steal(pgboss.state)", "text", "'created'"),
    "CREATE CAST (pgboss.state AS text) WITH FUNCTION pgboss.steal AS IMPLICIT",
    `CREATE TABLE pgboss.job (${columns.replace("state text DEFAULT 'created'", "state pgboss.state DEFAULT ROW('created')")})`,
  ],
  [
    "a domain",
    thief("steal(text)", "boolean", "true"),
    "CREATE DOMAIN pgboss.id AS text CHECK (pgboss.steal(VALUE))",
    `CREATE TABLE pgboss.job (${columns.replace("id text", "id pgboss.id")})`,
  ],
  [
    "a partition",
    `CREATE TABLE pgboss.job (${columns}) PARTITION BY LIST (name)`,
    "CREATE TABLE pgboss.mail PARTITION OF pgboss.job FOR VALUES IN ('mail')",
    thief("steal()", "trigger", "OLD"),
    "CREATE TRIGGER steal BEFORE DELETE ON pgboss.mail FOR EACH ROW EXECUTE FUNCTION pgboss.steal()",
  ],
  [
    "a view of its schedules",
    `CREATE TABLE pgboss.job (${columns})`,
    thief("steal(text)", "text", "$1"),
    "CREATE VIEW pgboss.schedule AS SELECT pgboss.steal('mail') AS name",
  ],
];

describe("tables of another role", () => {
  it.each(traps)("are not touched: %s", async (what, ...statements) => {
    await as(mallory, "CREATE SCHEMA pgboss", ...statements);
    await as(mallory, "INSERT INTO pgboss.job (id, name) VALUES ('1', 'mail')").catch(() => undefined);
    await world.query("TRUNCATE public.stolen");
    for (const args of [[], ["--move"]])
      expect(await imports(...args)).toMatchObject({
        status: 77,
        stdout: "",
        stderr: expect.stringMatching(
          new RegExp(
            `the schema pgboss belongs to "${mallory}".*or say --owner ${mallory} if you trust .*not_permitted`,
            "s",
          ),
        ),
      });
    expect(await world.query("SELECT * FROM public.stolen")).toEqual([]);
    // These would be one, and the others are refused by other rules, too.
    const works = /trigger|partition|index|cast/.test(what);
    if (works) await imports("--move", "--owner", mallory);
    expect(await world.query("SELECT DISTINCT role FROM public.stolen")).toEqual(works ? [{ role: "postgres" }] : []);
  });

  it("are moved if the operator trusts their owner", async () => {
    await as(mallory, "CREATE SCHEMA pgboss", `CREATE TABLE pgboss.job (${columns})`);
    await as(mallory, "INSERT INTO pgboss.job (id, name) VALUES ('1', 'mail')");
    expect(await imports("--move", "--owner", mallory)).toMatchObject({ status: 0, stderr: "" });
    expect(await world.query("SELECT topic FROM hawser_data.queue")).toEqual([{ topic: "mail" }]);
  });

  /** Own tables, and what their owner has granted another role. */
  const granted: readonly (readonly [what: string, why: string, ...statements: string[]])[] = [
    [
      "a trigger",
      `the trigger steal of pgboss.job belongs to "${mallory}"`,
      thief("steal()", "trigger", "OLD").replace("pgboss.", "trap."),
      "CREATE TRIGGER steal AFTER DELETE ON pgboss.job FOR EACH ROW EXECUTE FUNCTION trap.steal()",
    ],
    [
      "a foreign key, with a trigger that runs at the commit",
      `trap.theirs, which refers to pgboss.job, belongs to "${mallory}"`,
      "CREATE TABLE trap.theirs (id text REFERENCES pgboss.job (id) ON DELETE CASCADE)",
      "INSERT INTO trap.theirs VALUES ('1')",
      thief("steal()", "trigger", "NULL").replace("pgboss.", "trap."),
      "CREATE CONSTRAINT TRIGGER steal AFTER DELETE ON trap.theirs INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION trap.steal()",
    ],
  ];

  it.each(granted)("are not touched if another role has %s there", async (_, why, ...statements) => {
    await world.query("CREATE SCHEMA pgboss");
    await world.query(`CREATE TABLE pgboss.job (${columns}, PRIMARY KEY (id))`);
    await world.query("INSERT INTO pgboss.job (id, name) VALUES ('1', 'mail')");
    await world.query(`GRANT USAGE ON SCHEMA pgboss TO ${mallory}`);
    await world.query(`GRANT ALL ON pgboss.job TO ${mallory}`);
    await as(mallory, "CREATE SCHEMA trap", ...statements);
    expect(await imports("--move")).toMatchObject({ status: 77, stderr: expect.stringContaining(why) });
    expect(await world.query("SELECT * FROM public.stolen")).toEqual([]);
  });

  it("are not taken for one's own after SET ROLE, which their functions can undo", async () => {
    await as(mallory, "CREATE SCHEMA pgboss", `CREATE TABLE pgboss.job (${columns})`);
    const options = { databaseUrl: world.url, env: { PGOPTIONS: `-c role=${mallory}` } };
    await world.query(`GRANT hawser_peer TO ${mallory}`);
    expect(await hawser(["jobs", "import", "pg-boss", "--move"], options)).toMatchObject({
      status: 77,
      stderr: expect.stringContaining(`belongs to "${mallory}"`),
    });
  });
});

describe("jobs of which no message can be made", () => {
  beforeEach(async () => {
    await world.query("CREATE SCHEMA pgboss");
    await world.query(`CREATE TABLE pgboss.job (${columns})`);
  });

  it("stay, and are named with the reason; all others are moved", async () => {
    await world.query(`INSERT INTO pgboss.job (id, name, policy, singleton_key, start_after, data) VALUES
      ('late', 'mail', NULL, NULL, 'infinity', '1'), ('far', 'mail', NULL, NULL, now() + interval '11 years', '1'),
      ('past', 'mail', NULL, NULL, '-infinity', '1'),
      ('key', 'mail', 'key_strict_fifo', repeat('k', 9000), now(), '1'), ('unique', 'mail', 'short', E'\\x01' || repeat('k', 9000), now(), '1'),
      (repeat('i', 9000), 'mail', NULL, NULL, now(), '1'),
      ('odd', 'a:b', NULL, NULL, now(), '1'), ('odd too', '', NULL, NULL, now(), '1')`);
    await world.query("INSERT INTO pgboss.job (id, name) SELECT 'n' || n, 'mail' FROM generate_series(1, 600) AS n");
    const { status, stdout, stderr } = await imports("--move", "--json");
    expect({ status, stderr }).toEqual({ status: 1, stderr: "" });
    const rows = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(rows).toMatchObject([
      {
        queue: "",
        waiting: 1,
        refused: 1,
        refusals: [{ reason: expect.stringContaining("name another one with --to") }],
      },
      { queue: "a:b", waiting: 1, refused: 1, refusals: [{ reason: expect.stringContaining('the topic "a:b" ') }] },
      {
        ...{ queue: "mail", waiting: 606, refused: 5 },
        refusals: expect.arrayContaining([
          { id: "late", reason: expect.stringContaining("infinity") },
          { id: "far", reason: expect.any(String) },
          { id: "key", reason: expect.any(String) },
          { id: "unique", reason: expect.any(String) },
          { id: "i".repeat(300), reason: expect.any(String) },
        ]),
      },
    ]);
    expect(await world.query("SELECT count(*)::integer FROM hawser_data.queue")).toEqual([{ count: 601 }]);
    expect(await world.query("SELECT count(*)::integer FROM pgboss.job")).toEqual([{ count: 7 }]);
  });

  it("are counted where they are more than are named", async () => {
    await world.query(
      "INSERT INTO pgboss.job (id, name, start_after) SELECT n, 'mail', 'infinity' FROM generate_series(1, 30) AS n",
    );
    await world.query("INSERT INTO pgboss.job (id, name) VALUES ('good', 'mail')");
    const { status, stdout, stderr } = await imports("--move");
    expect(status).toBe(1);
    expect(stdout).toMatch(/MOVED .*REFUSED\nmail +mail +1 .* 30\n/);
    expect(stderr.match(/^job \d+ of "mail" cannot be moved: /gm)).toHaveLength(10);
    expect(stderr).toMatch(/30 jobs cannot be moved, and stay\.\n$/);
  });

  it("are told before they are to be moved, if it is for the name of their queue", async () => {
    await world.query("INSERT INTO pgboss.job (id, name) VALUES ('1', 'a:b')");
    expect(await imports()).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('all jobs of "a:b" cannot be moved: the topic "a:b" '),
    });
    expect(await imports("--move", "--to", "a:b=ab")).toMatchObject({ status: 0 });
  });
});

it("says how many schedules are not taken over", async () => {
  await world.query("CREATE SCHEMA pgboss");
  await world.query(`CREATE TABLE pgboss.job (${columns})`);
  await world.query("CREATE TABLE pgboss.schedule (name text, cron text)");
  await world.query(
    "INSERT INTO pgboss.schedule VALUES ('mail', '* * * * *'), ('mail', '1 * * * *'), ('clean', '2 * * * *')",
  );
  expect(await imports()).toMatchObject({
    status: 0,
    stderr: expect.stringContaining("3 schedules are not taken over: call hawser.schedule for each."),
  });
});
