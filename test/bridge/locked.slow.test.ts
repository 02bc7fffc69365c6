/**
 * Functions that wait for a lock, or fail for what is nobody's fault: no message is blamed, and nobody else waits for it.
 */
import pg from "pg";
import { expect, it } from "vitest";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { bridgeWorld } from "./support/bridge-world.js";

it("four subscriptions behind a locked table lose no message to dead letters, and another role's runs all the time", async () => {
  await using world = await bridgeWorld({
    subscriberTimeoutMs: 1_000,
    sql: `
      CREATE SEQUENCE tries;
      GRANT USAGE ON tries TO PUBLIC;
      CREATE TABLE locked (n text);
      CREATE TABLE ran (n int, at timestamptz DEFAULT clock_timestamp());
      CREATE FUNCTION one(p bytea) RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM nextval('public.tries'); INSERT INTO public.locked VALUES ('one ' || convert_from(p, 'UTF8')); END$$;
      CREATE FUNCTION two(p bytea) RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM nextval('public.tries'); INSERT INTO public.locked VALUES ('two ' || convert_from(p, 'UTF8')); END$$;
      CREATE FUNCTION three(p bytea) RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM nextval('public.tries'); INSERT INTO public.locked VALUES ('three ' || convert_from(p, 'UTF8')); END$$;
      CREATE FUNCTION four(p bytea) RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM nextval('public.tries'); INSERT INTO public.locked VALUES ('four ' || convert_from(p, 'UTF8')); END$$;
      CREATE FUNCTION other(p bytea) RETURNS void LANGUAGE sql AS $$INSERT INTO public.ran (n) SELECT convert_from(p, 'UTF8')::int WHERE p <> ''$$;
      GRANT INSERT ON ran TO PUBLIC`,
  });
  const subject = `${world.prefix}.locked`;
  for (const name of ["one", "two", "three", "four"]) await world.subscribe(subject, `${name}(bytea)`);
  const user = await world.user();
  const others = `${world.prefix}.others`;
  await user.client.query("SELECT nats_subscribe($1, 'public.other(bytea)'::regprocedure)", [others]);
  await world.live(others);
  const locker = new pg.Client(world.database.url);
  await locker.connect();
  await locker.query("BEGIN; LOCK TABLE locked");
  for (let n = 0; n < 5; n += 1) world.nats.publish(subject, `${n}`);
  // Each of the other role's runs while those behind the lock are tried again and again, beyond their time limit.
  const tries = () => world.count("SELECT last_value FROM tries");
  let sent = 0;
  while (sent < 20 || (await tries()) < 20) {
    world.nats.publish(others, `${sent}`);
    await eventually("it has run", async () => (await world.count(`SELECT count(*) FROM ran WHERE n = ${sent}`)) > 0);
    sent += 1;
  }
  await locker.query("ROLLBACK");
  await locker.end();
  // Beside the probes, which are empty, and some of which may have waited, too.
  const all = "SELECT count(*) FROM locked WHERE n ~ '\\d$'";
  await world.counts(20, all);
  expect(await world.count("SELECT count(*) FROM hawser_data.dead_letters")).toBe(0);
  for (const name of ["one", "two", "three", "four"]) {
    const ran = await world.rows<{ n: string }>(`SELECT n FROM locked WHERE n ~ '^${name} \\d'`);
    expect(ran.map(({ n }) => n)).toEqual([0, 1, 2, 3, 4].map((n) => `${name} ${n}`));
  }
});

it("a function that now and then cannot be serialized is called in few transactions, and few times more", async () => {
  const messages = atDepth(20_000);
  await using world = await bridgeWorld({
    sql: `
      CREATE TABLE ran (id bigserial, n int);
      CREATE TABLE rate (part float8);
      INSERT INTO rate VALUES (0);
      CREATE SEQUENCE calls;
      CREATE SEQUENCE statements;
      CREATE SEQUENCE transactions;
      CREATE SEQUENCE last_statement;
      CREATE SEQUENCE last_transaction;
      CREATE FUNCTION take(p bytea) RETURNS void LANGUAGE plpgsql AS $$
      DECLARE
        v_statement bigint := extract(epoch FROM statement_timestamp()) * 1000000;
        v_transaction bigint := extract(epoch FROM now()) * 1000000;
      BEGIN
        IF p = '' THEN RETURN; END IF;
        PERFORM nextval('public.calls');
        IF v_statement <> (SELECT last_value FROM public.last_statement) THEN
          PERFORM setval('public.last_statement', v_statement), nextval('public.statements');
        END IF;
        IF v_transaction <> (SELECT last_value FROM public.last_transaction) THEN
          PERFORM setval('public.last_transaction', v_transaction), nextval('public.transactions');
        END IF;
        IF random() < (SELECT part FROM public.rate) THEN RAISE EXCEPTION 'try again' USING ERRCODE = '40001'; END IF;
        INSERT INTO public.ran (n) VALUES (convert_from(p, 'UTF8')::int);
      END $$`,
  });
  const subject = `${world.prefix}.serialized`;
  await world.subscribe(subject, "take(bytea)");
  /** Measures the cost of a message if that part of the calls fails. Sequences are not rolled back. */
  const costOf = async (part: number): Promise<Record<"calls" | "statements" | "transactions", number>> => {
    await world.rows("TRUNCATE ran");
    for (const name of ["calls", "statements", "transactions"]) await world.rows(`ALTER SEQUENCE ${name} RESTART`);
    await world.rows("UPDATE rate SET part = $1", [part]);
    for (let n = 0; n < messages; n += 1) world.nats.publish(subject, `${n}`);
    await world.nats.flush();
    await eventually("all have run", async () => (await world.count("SELECT count(*) FROM ran")) === messages, 120_000);
    const rows = await world.rows<{ n: number }>("SELECT n FROM ran ORDER BY id");
    expect(rows.map(({ n }) => n)).toEqual(Array.from({ length: messages }, (_, n) => n));
    const each = async (name: string) => (await world.count(`SELECT last_value FROM ${name}`)) / messages;
    return {
      calls: await each("calls"),
      statements: await each("statements"),
      transactions: await each("transactions"),
    };
  };
  const [none, one, five] = [await costOf(0), await costOf(0.01), await costOf(0.05)];
  console.log("40001: for each message", none, "for 1 % of failures", one, "for 5 %", five);
  expect(none.calls).toBeLessThan(2);
  for (const { calls, statements, transactions } of [one, five]) {
    expect(calls).toBeLessThan(3);
    // Calling the messages one by one makes a statement for each.
    expect(statements).toBeLessThan(0.5);
    // Halving whole batches makes a transaction for each statement.
    expect(transactions).toBeLessThan(statements / 4);
  }
  expect(await world.count("SELECT count(*) FROM hawser_data.dead_letters")).toBe(0);
});
