/**
 * Batches of functions that run into serialization failures: in groups, each behind a savepoint of the same transaction.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

const messages = 500;

let world: BridgeWorld;

beforeAll(async () => {
  world = await bridgeWorld({ sql: "CREATE TABLE ran (id bigserial, n int, xid xid8 DEFAULT pg_current_xact_id())" });
});
afterAll(async () => world?.[Symbol.asyncDispose]());
beforeEach(async () => {
  await world.client.query("TRUNCATE ran; DELETE FROM hawser_data.dead_letters");
});

/** Publishes them while the table is locked, so that they come to be in one batch, or nearly. */
async function publish(subject: string): Promise<void> {
  const blocker = await world.connect();
  await blocker.query("BEGIN; LOCK TABLE ran IN SHARE MODE");
  for (let n = 0; n < messages; n += 1) world.nats.publish(subject, `${n}`);
  await world.nats.flush();
  await blocker.query("ROLLBACK");
  await blocker.end();
}

describe("a function that raises a serialization failure now and then", () => {
  it("is called for the other messages of the batch in the same transaction: each runs once, in order", async () => {
    await world.client.query(`
      CREATE FUNCTION now_and_then(p bytea) RETURNS void LANGUAGE plpgsql AS $$
      BEGIN
        IF p = '' THEN RETURN; END IF;
        INSERT INTO ran (n) VALUES (convert_from(p, 'UTF8')::int);
        IF random() < 0.05 THEN RAISE EXCEPTION 'try again' USING ERRCODE = '40001'; END IF;
      END $$`);
    const subject = `${world.prefix}.now_and_then`;
    await world.subscribe(subject, "now_and_then(bytea)");
    await publish(subject);
    await eventually("all have run", async () => (await world.count("SELECT count(*) FROM ran")) >= messages);
    const rows = await world.rows<{ n: number }>("SELECT n FROM ran ORDER BY id");
    expect(rows.map(({ n }) => n)).toEqual(Array.from({ length: messages }, (_, n) => n));
    expect(await world.count("SELECT count(*) FROM hawser_data.dead_letters")).toBe(0);
    // A transaction for each failure would be some 25.
    expect(await world.count("SELECT count(DISTINCT xid) FROM ran")).toBeLessThan(15);
  });

  it("has the message that fails for good become a dead letter, and no other", async () => {
    await world.client.query(`
      CREATE FUNCTION one_is_bad(p bytea) RETURNS void LANGUAGE plpgsql AS $$
      BEGIN
        IF p = '' THEN RETURN; END IF;
        IF p = '333' THEN RAISE EXCEPTION 'bad'; END IF;
        IF random() < 0.05 THEN RAISE EXCEPTION 'try again' USING ERRCODE = '40001'; END IF;
        INSERT INTO ran (n) VALUES (convert_from(p, 'UTF8')::int);
      END $$`);
    const subject = `${world.prefix}.one_is_bad`;
    await world.subscribe(subject, "one_is_bad(bytea)");
    await publish(subject);
    await eventually("all have run", async () => (await world.count("SELECT count(*) FROM ran")) >= messages - 1);
    const rows = await world.rows<{ n: number }>("SELECT n FROM ran ORDER BY id");
    expect(rows.map(({ n }) => n)).toEqual(Array.from({ length: messages }, (_, n) => n).filter((n) => n !== 333));
    const dead = "SELECT convert_from(payload, 'UTF8') AS payload, error_code FROM hawser_data.dead_letters";
    await eventually("it is a dead letter", async () => (await world.rows(dead)).length > 0);
    expect(await world.rows(dead)).toEqual([{ payload: "333", error_code: "P0001" }]);
  });

  it("leaves no setting behind for what the executor runs before the next group", async () => {
    const user = await world.user();
    await world.client.query(
      `GRANT INSERT ON ran TO ${user.role}; GRANT USAGE ON SEQUENCE ran_id_seq TO ${user.role}; TRUNCATE ran`,
    );
    // What stands for = when the path names pg_catalog behind another schema.
    await user.client.query(`
      CREATE TABLE planted (who text);
      GRANT USAGE ON SCHEMA ${user.role} TO PUBLIC;
      GRANT INSERT ON planted TO PUBLIC;
      CREATE FUNCTION planted(text, text) RETURNS bool LANGUAGE plpgsql AS $$
      BEGIN
        INSERT INTO ${user.role}.planted VALUES (session_user || ' as ' || current_user);
        RETURN $1 OPERATOR(pg_catalog.=) $2;
      END $$;
      CREATE OPERATOR = (LEFTARG = text, RIGHTARG = text, FUNCTION = planted);
      CREATE FUNCTION hostile(p bytea) RETURNS void LANGUAGE plpgsql AS $$
      BEGIN
        IF p OPERATOR(pg_catalog.=) '' THEN RETURN; END IF;
        IF random() < 0.05 THEN RAISE EXCEPTION 'try again' USING ERRCODE = '40001'; END IF;
        INSERT INTO public.ran (n) VALUES (convert_from(p, 'UTF8')::int);
        PERFORM set_config('search_path', '${user.role}, pg_catalog', false), set_config('statement_timeout', '1', false);
      END $$`);
    const subject = `${world.prefix}.hostile`;
    await user.client.query("SELECT nats_subscribe($1, 'hostile')", [subject]);
    await world.live(subject);
    await publish(subject);
    await eventually("all have run", async () => (await world.count("SELECT count(*) FROM ran")) >= messages);
    expect(await world.rows("SELECT * FROM ran WHERE n IS NULL")).toEqual([]);
    expect(await user.client.query("SELECT DISTINCT who FROM planted").then(({ rows }) => rows)).toEqual([]);
  });

  it("cannot have anything written at COMMIT, as the login or otherwise", async () => {
    const user = await world.user();
    await world.client.query(`
      GRANT INSERT ON ran TO PUBLIC; GRANT USAGE ON SEQUENCE ran_id_seq TO PUBLIC; TRUNCATE ran;
      CREATE TABLE wrote (who text); GRANT INSERT ON wrote TO PUBLIC`);
    // The trigger is put off once more while the wrapper settles what was deferred, and declares a cursor at COMMIT, whose query
    // is run as the login. Whether it is behind a savepoint a function sees by the id of its subtransaction.
    await user.client.query(`
      GRANT USAGE ON SCHEMA ${user.role} TO PUBLIC;
      CREATE TABLE later (n int); GRANT ALL ON later TO PUBLIC;
      CREATE TABLE mark (n int);
      CREATE FUNCTION at_commit() RETURNS int LANGUAGE plpgsql AS $$
      BEGIN
        INSERT INTO public.wrote VALUES (current_user);
        EXECUTE format('ALTER ROLE %I PASSWORD %L', current_user, 'mine');
        RETURN 1;
      END $$;
      CREATE FUNCTION once_more() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        IF NEW.n = 0 THEN
          SET CONSTRAINTS ALL DEFERRED;
          INSERT INTO ${user.role}.later VALUES (1);
        ELSE
          EXECUTE format('DECLARE %I CURSOR WITH HOLD FOR SELECT ${user.role}.at_commit()', 'c' || random());
        END IF;
        RETURN NULL;
      END $$;
      CREATE CONSTRAINT TRIGGER later AFTER INSERT ON later DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION once_more();
      CREATE SEQUENCE calls;
      CREATE FUNCTION puts_off(p bytea) RETURNS void LANGUAGE plpgsql AS $$
      DECLARE
        here text;
      BEGIN
        IF p = '' THEN RETURN; END IF;
        IF nextval('calls') = 5 THEN RAISE EXCEPTION 'try again' USING ERRCODE = '40001'; END IF;
        INSERT INTO public.ran (n) VALUES (convert_from(p, 'UTF8')::int);
        INSERT INTO mark VALUES (1) RETURNING xmin::text INTO here;
        IF here <> pg_current_xact_id()::xid::text THEN INSERT INTO later VALUES (0); END IF;
      END $$`);
    const login =
      "SELECT a.rolpassword FROM pg_authid AS a JOIN hawser_bridge_data.executor_login AS e ON e.user_name = a.rolname";
    const before = await world.rows(login);
    const subject = `${world.prefix}.puts_off`;
    await user.client.query("SELECT nats_subscribe($1, 'puts_off')", [subject]);
    await world.live(subject);
    await publish(subject);
    await eventually(
      "each has run, or has failed",
      async () =>
        (await world.count(
          `SELECT (SELECT count(DISTINCT n) FROM ran) + (SELECT count(*) FROM hawser_data.dead_letters WHERE topic = '${subject}')`,
        )) >= messages,
      60_000,
    );
    expect(await world.rows("SELECT DISTINCT who FROM wrote")).toEqual([]);
    expect(await world.rows(login)).toEqual(before);
  });
});
