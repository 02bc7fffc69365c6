/**
 * Functions that want more than their role may: out of it, at secrets, at what others run, at those that come after them in
 * the same session. None has any effect on another role's messages.
 */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Login } from "../installation/support/logins.js";
import { eventually } from "../support/eventually.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let world: BridgeWorld;
let mallory: Login & { readonly client: pg.Client };
let alice: Login & { readonly client: pg.Client };

beforeAll(async () => {
  // One session for all, so that what one function leaves behind is where the next one runs.
  world = await bridgeWorld({
    subscriberSessions: 1,
    sql: `
      CREATE TABLE tried (id bigserial, what text, outcome text, who text);
      GRANT INSERT ON tried TO PUBLIC; GRANT USAGE ON SEQUENCE tried_id_seq TO PUBLIC;
      CREATE TABLE seen (id bigserial, n text, state jsonb);
      GRANT INSERT ON seen TO PUBLIC; GRANT USAGE ON SEQUENCE seen_id_seq TO PUBLIC;
      CREATE SEQUENCE numbers; GRANT USAGE ON SEQUENCE numbers TO PUBLIC;
      CREATE FUNCTION last_value() RETURNS SETOF bigint LANGUAGE plpgsql AS $$
        BEGIN
          RETURN NEXT currval('public.numbers');
        EXCEPTION WHEN object_not_in_prerequisite_state THEN
        END $$;
      CREATE FUNCTION session_state() RETURNS jsonb LANGUAGE sql AS $$
        SELECT jsonb_build_object(
          'who', current_user, 'path', current_setting('search_path'), 'timeout', current_setting('statement_timeout'),
          'work_mem', current_setting('work_mem'), 'mine', coalesce(current_setting('mallory.was_here', true), ''),
          'readonly', current_setting('default_transaction_read_only'), 'role', current_setting('role'),
          'isolation', current_setting('default_transaction_isolation'), 'encoding', current_setting('client_encoding'),
          'pid', pg_backend_pid(), 'sequences', (SELECT count(*) FROM public.last_value()),
          'temp', (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()),
          'prepared', (SELECT count(*) FROM pg_prepared_statements WHERE name <> ''),
          'cursors', (SELECT count(*) FROM pg_cursors WHERE is_holdable),
          'locks', (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
          'channels', (SELECT count(*) FROM pg_listening_channels())) $$;
      CREATE FUNCTION look(payload bytea) RETURNS void LANGUAGE sql
        AS $$INSERT INTO seen (n, state) SELECT convert_from(payload, 'UTF8'), session_state() WHERE payload <> ''$$;
    `,
  });
  [mallory, alice] = [await world.user(), await world.user()];
  // It runs its payload as SQL.
  await mallory.client.query(`
    CREATE FUNCTION runs(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
      statement text := convert_from(payload, 'UTF8');
    BEGIN
      IF statement = '' THEN RETURN; END IF;
      BEGIN
        EXECUTE statement;
        INSERT INTO public.tried (what, outcome, who) VALUES (statement, 'done', current_user);
      EXCEPTION WHEN OTHERS THEN
        INSERT INTO public.tried (what, outcome, who) VALUES (statement, SQLSTATE, current_user);
      END;
    END $$`);
  await mallory.client.query("SELECT nats_subscribe($1, 'runs')", [`${world.prefix}.runs`]);
  await mallory.client.query("SELECT nats_subscribe($1, 'look')", [`${world.prefix}.mallory`]);
  await alice.client.query("SELECT nats_subscribe($1, 'look')", [`${world.prefix}.alice`]);
  for (const word of ["runs", "mallory", "alice"]) await world.live(`${world.prefix}.${word}`);
});
afterAll(async () => world?.[Symbol.asyncDispose]());

/** Has mallory's function run statements, one message each. @returns what became of each */
async function run(...statements: readonly string[]): Promise<{ what: string; outcome: string; who: string }[]> {
  const before = await world.count("SELECT coalesce(max(id), 0) FROM tried");
  for (const statement of statements) world.nats.publish(`${world.prefix}.runs`, statement);
  const tried = () =>
    world.rows<{ what: string; outcome: string; who: string }>(
      "SELECT what, outcome, who FROM tried WHERE id > $1 ORDER BY id",
      [before],
    );
  await eventually(`${statements} were tried`, async () => (await tried()).length === statements.length);
  return tried();
}

let looks = 0;
/** Reads the state of the session that the next function finds. */
async function nextOf(whose: "mallory" | "alice"): Promise<Record<string, unknown>> {
  const n = `look ${++looks}`;
  world.nats.publish(`${world.prefix}.${whose}`, n);
  await eventually("it has looked", async () => (await world.rows("SELECT FROM seen WHERE n = $1", [n])).length === 1);
  const [row] = await world.rows<{ state: Record<string, unknown> }>("SELECT state FROM seen WHERE n = $1", [n]);
  return row!.state;
}

describe("a function cannot become another role", () => {
  it("by any statement", async () => {
    const statements = [
      "RESET ROLE",
      "SET ROLE postgres",
      "SET ROLE NONE",
      "SET LOCAL ROLE postgres",
      `SET ROLE ${alice.role}`,
      "SET SESSION AUTHORIZATION postgres",
      `SET SESSION AUTHORIZATION ${alice.role}`,
      "SET SESSION AUTHORIZATION DEFAULT",
      "RESET SESSION AUTHORIZATION",
      "SELECT set_config('role', 'none', false)",
      "SELECT set_config('session_authorization', 'postgres', false)",
      "DISCARD ALL",
      "COMMIT",
    ];
    const outcome = expect.stringMatching(/^(42501|25001|2D000|0A000)$/);
    expect(await run(...statements)).toEqual(statements.map((what) => ({ what, outcome, who: mallory.role })));
  });

  it("by what it defers to COMMIT, if a trigger defers once more", async () => {
    const executor = await world.value<string>("SELECT user_name FROM hawser_bridge_data.executor_login");
    await mallory.client.query(`
      GRANT USAGE ON SCHEMA ${mallory.role} TO PUBLIC;
      CREATE TABLE later (n int);
      GRANT ALL ON later TO PUBLIC;
      CREATE FUNCTION is_called() RETURNS trigger LANGUAGE plpgsql AS $$
      DECLARE
        statement text;
        outcomes text[];
      BEGIN
        IF NEW.n < 2 THEN
          SET CONSTRAINTS ALL DEFERRED;
          INSERT INTO ${mallory.role}.later VALUES (3 - NEW.n);
          RETURN NULL;
        END IF;
        IF NEW.n = 3 THEN
          INSERT INTO public.tried (what, outcome) VALUES ('late', 'done');
        END IF;
        FOREACH statement IN ARRAY ARRAY[
          'SELECT count(*) FROM hawser_bridge_data.executor_login', 'SELECT count(*) FROM hawser_bridge_data.gateway_secret',
          'SELECT count(*) FROM hawser_bridge_data.nats_server', 'SELECT token FROM hawser_bridge_data.nats_handlers',
          'SELECT count(*) FROM hawser_data.dead_letters', 'UPDATE hawser_data.fences SET epoch = 0', 'SELECT count(*) FROM public.seen',
          'SET ROLE postgres', 'SET ROLE ${alice.role}', 'SET ROLE ${mallory.role}', 'SET SESSION AUTHORIZATION postgres', 'COMMIT',
          format('ALTER ROLE %I PASSWORD %L', current_user, 'mine'), 'SET TRANSACTION READ WRITE', 'CREATE TEMP TABLE mine ()'
        ] LOOP
          BEGIN
            EXECUTE statement;
            outcomes := outcomes || '00000'::text;
          EXCEPTION WHEN OTHERS THEN
            outcomes := outcomes || SQLSTATE::text;
          END;
        END LOOP;
        RAISE EXCEPTION '%', json_build_object('who', current_user, 'outcomes', outcomes);
      END $$;
      CREATE CONSTRAINT TRIGGER later AFTER INSERT ON later DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION is_called()`);
    world.nats.publish(`${world.prefix}.runs`, `INSERT INTO ${mallory.role}.later VALUES (1)`);
    world.nats.publish(`${world.prefix}.runs`, `INSERT INTO ${mallory.role}.later VALUES (0)`);
    const letters = () =>
      world.rows<{ code: string; words: string }>(
        "SELECT error_code AS code, error_message AS words FROM hawser_data.dead_letters WHERE payload LIKE 'INSERT INTO %.later %' ORDER BY id",
      );
    await eventually("both have failed", async () => (await letters()).length === 2);
    const [told, wrote] = await letters();
    const { who, outcomes } = JSON.parse(told!.words) as { who: string; outcomes: string[] };
    // From Postgres 18 on it runs as the role that has queued it.
    expect([executor, mallory.role]).toContain(who);
    expect(outcomes).toEqual(Array(15).fill(expect.stringMatching(/^(42501|2D000|0A000|25006|25001)$/)));
    expect(wrote!.code).toBe("25P02");
    expect(await world.rows("SELECT FROM tried WHERE what = 'late'")).toEqual([]);
    expect(await nextOf("alice")).toMatchObject({ who: alice.role });
  });
});

describe("a function cannot read", () => {
  it("any table of Hawser that its role may not, nor secrets of Postgres", async () => {
    const tables = await world.rows<{ name: string; readable: boolean }>(
      `SELECT format('%I.%I', c.relnamespace::regnamespace::text, c.relname) AS name, has_table_privilege($1, c.oid, 'SELECT') AS readable
         FROM pg_class AS c WHERE c.relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace, 'hawser_peer_data'::regnamespace, 'hawser_bridge_data'::regnamespace) AND c.relkind IN ('r', 'v', 'p')
        AND c.relname NOT IN ('outbox_status', 'schedule_status', 'stream_status')`,
      [mallory.role],
    );
    const secrets = ["gateway_secret", "executor_login", "nats_server", "nats_handlers"].map(
      (name) => `hawser_bridge_data.${name}`,
    );
    expect(tables.map(({ name }) => name)).toEqual(expect.arrayContaining(secrets));
    expect(tables.filter(({ readable }) => readable).map(({ name }) => name)).toEqual([]);
    const statements = [
      ...secrets.map((name) => `SELECT count(*) FROM ${name}`),
      ...["pg_authid", "pg_user_mapping"].map((name) => `SELECT count(*) FROM ${name} AS s WHERE s::text IS NOT NULL`),
    ];
    expect(await run(...statements)).toEqual(statements.map((what) => ({ what, outcome: "42501", who: mallory.role })));
  });
});

describe("state that a function leaves behind in its session", () => {
  const clean = {
    ...{ timeout: "30s", work_mem: "4MB", mine: "", readonly: "off", role: "none", isolation: "read committed" },
    ...{ encoding: "UTF8", temp: 0, prepared: 0, cursors: 0, locks: 0, channels: 0, sequences: 0 },
  };
  const cases: Readonly<Record<string, string>> = {
    settings: `SELECT set_config('work_mem', '99MB', false), set_config('mallory.was_here', 'yes', false),
      set_config('default_transaction_read_only', 'on', false), set_config('statement_timeout', '1h', false), set_config('search_path', 'mallory', false)`,
    "a temporary table": "CREATE TEMP TABLE seen (n text, state jsonb)",
    "a temporary table that goes before":
      "CREATE TEMP TABLE pg_class_of_mine AS SELECT 1; CREATE TEMP VIEW tried AS SELECT 1",
    "a LISTEN": "LISTEN alice",
    "a prepared statement": "PREPARE hawser AS SELECT 1",
    "a cursor WITH HOLD": "DECLARE stays CURSOR WITH HOLD FOR SELECT 1",
    "advisory locks": "SELECT pg_advisory_lock(1), pg_advisory_lock(2, 3)",
    "no advisory locks": "SELECT pg_advisory_unlock_all()",
    "a session without triggers": "SET session_replication_role = replica",
    "another encoding": "SET client_encoding = 'SQL_ASCII'",
    "another isolation level": "SET default_transaction_isolation = serializable",
    "the value of a sequence": "SELECT nextval('public.numbers')",
    "a deferred error": "CREATE TEMP TABLE doubled (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
  };
  it.each(Object.keys(cases))("%s is not there for the next one", async (name) => {
    const { pid } = await nextOf("mallory");
    await run(cases[name]!);
    // Cleared, and not another one in its place.
    expect(await nextOf("mallory")).toMatchObject({ ...clean, pid, who: mallory.role });
    await run(cases[name]!);
    expect(await nextOf("alice")).toMatchObject({ ...clean, who: alice.role });
  });

  it("a time limit of 1 ms is not there for the next one, in a new session if it ends the cleaning of the old one", async () => {
    const short = "SELECT set_config('statement_timeout', '1', false)";
    await run(short);
    expect(await nextOf("mallory")).toMatchObject({ ...clean, who: mallory.role });
    await run(short);
    expect(await nextOf("alice")).toMatchObject({ ...clean, who: alice.role });
  });
});
