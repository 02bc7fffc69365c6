/**
 * One message among many that its function cannot take: it fails, fails only when deferred constraints are checked, ends its
 * database session, or hangs. All others are run once, in order; the one is a dead letter with its error.
 */
import { randomBytes } from "node:crypto";
import { connect } from "@nats-io/transport-node";
import pg from "pg";
import { expect, it } from "vitest";
import { errorTable } from "../../src/errors/index.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { ServeGroup } from "./support/bridge-group.js";
import { sqlDatabase } from "./support/sql-database.js";

const messages = 3_000;
const poison = 1_729;
const alwaysFailing = 100;
const prefix = `poison.${randomBytes(4).toString("hex")}`;

interface Kind {
  readonly name: string;
  /** What its function does with the poison. */
  readonly action: string;
  readonly code: string;
  readonly message: RegExp;
}

const kinds: readonly Kind[] = [
  { name: "raises", action: "RAISE EXCEPTION 'no room for %', n", code: "P0001", message: /^no room for 1729$/ },
  {
    name: "breaks_a_deferred_constraint",
    action: "INSERT INTO child VALUES (n)",
    code: "23503",
    message: /violates foreign key constraint/,
  },
  {
    name: "ends_its_session",
    action: "PERFORM pg_terminate_backend(pg_backend_pid())",
    code: errorTable.session_lost.sqlstate,
    message: /ended twice while the function ran for this message alone/,
  },
  { name: "hangs", action: "PERFORM pg_sleep(60)", code: "57014", message: /statement timeout/ },
];

const tablesSql = `
  CREATE TABLE rows (seq bigserial, kind text, n integer, xid xid8 DEFAULT pg_current_xact_id());
  CREATE INDEX ON rows (kind);
  CREATE TABLE parent (n integer PRIMARY KEY);
  CREATE TABLE child (n integer REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
  CREATE FUNCTION always_fails(payload bytea) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'never'; END$$;
  SELECT nats_subscribe('${prefix}.always_fails', 'always_fails')`;

function functionSql({ name, action }: Kind): string {
  return `
    CREATE FUNCTION ${name}(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE n CONSTANT integer := convert_from(payload, 'UTF8')::integer;
    BEGIN
      IF n = ${poison} THEN ${action}; END IF;
      INSERT INTO rows (kind, n) VALUES ('${name}', n);
    END$$;
    SELECT nats_subscribe('${prefix}.${name}', '${name}')`;
}

const timeout = 240_000;
const limitMs = 100_000;
/** Of the function that hangs. No message alone takes as long, however busy the machine is. */
const subscriberTimeoutMs = 2_000;

it(`runs ${messages - 1} of ${messages} messages and makes a dead letter of the one that cannot be run`, {
  timeout,
}, async () => {
  await using database = await sqlDatabase(testNatsUrl());
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  try {
    await client.query(tablesSql);
    for (const kind of kinds) await client.query(functionSql(kind));
    await using group = await ServeGroup.start(database.url, 1, ["--subscriber-timeout-ms", `${subscriberTimeoutMs}`]);
    const nats = await connect({ servers: testNatsUrl() });
    const value = async <T>(sql: string, values: unknown[] = []): Promise<T> =>
      Object.values((await client.query(sql, values)).rows[0])[0] as T;
    const dead = (): Promise<number> => value("SELECT count(*)::integer FROM hawser.dead_letters WHERE payload <> '0'");
    await eventually("all subscriptions run", async () => {
      for (const { name } of kinds) nats.publish(`${prefix}.${name}`, "0");
      nats.publish(`${prefix}.always_fails`, "0");
      await nats.flush();
      const live: number = await value("SELECT count(DISTINCT kind)::integer FROM rows");
      return live === kinds.length && (await value<number>("SELECT count(*)::integer FROM hawser.dead_letters")) > 0;
    });
    const { pid } = group.members[0]!;
    const began = performance.now();
    const doneAfter = new Map<string, number>();
    for (let n = 1; n <= messages; n++) {
      for (const { name } of kinds) nats.publish(`${prefix}.${name}`, `${n}`);
      if (n <= alwaysFailing) nats.publish(`${prefix}.always_fails`, `${n}`);
    }
    await nats.flush();
    for (const { name } of kinds) {
      const sql = "SELECT count(*)::integer FROM rows WHERE kind = $1 AND n > 0";
      const isDone = async (): Promise<boolean> => (await value<number>(sql, [name])) >= messages - 1;
      await eventually(`all others of "${name}" are there`, isDone, limitMs);
      doneAfter.set(name, Math.round(performance.now() - began));
    }
    const areDead = async (): Promise<boolean> => (await dead()) === kinds.length + alwaysFailing;
    await eventually("all that fail are dead letters", areDead, limitMs);
    await nats.close();
    console.log(
      `one poison among ${messages}: all others done after (ms) ${JSON.stringify(Object.fromEntries(doneAfter))}`,
    );

    const expected = Array.from({ length: messages }, (_, index) => index + 1).filter((n) => n !== poison);
    for (const { name, code, message } of kinds) {
      // Each once, in order.
      const sql = "SELECT array_agg(n ORDER BY seq) FROM rows WHERE kind = $1 AND n > 0";
      expect(await value(sql, [name]), name).toEqual(expected);
      const { rows: letters } = await client.query(
        "SELECT error_code, error_message, convert_from(payload, 'UTF8') AS payload, origin, source FROM hawser.dead_letters WHERE topic = $1",
        [`${prefix}.${name}`],
      );
      const source = `public.${name}(bytea)`;
      expect(letters).toEqual([
        {
          error_code: code,
          error_message: expect.stringMatching(message),
          payload: `${poison}`,
          origin: "subscription",
          source,
        },
      ]);
    }
    expect(await value("SELECT count(*)::integer FROM child")).toBe(0);
    expect(group.members[0]).toMatchObject({ isRunning: true, pid });
  } finally {
    await client.end();
  }
});
