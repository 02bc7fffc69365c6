/**
 * Subscriptions of functions that are renamed, moved, or dropped beside their subscription: the function counts, not
 * its name, which another function takes.
 */
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { ask, type BindingWorld, bindingWorld, deliver, errorOf } from "./support/binding-world.js";

let world: BindingWorld;
let client: pg.Client;
let other: pg.Client;
const f = "CREATE FUNCTION f(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT'";

beforeAll(async () => {
  world = await bindingWorld();
  client = world.client;
  other = await world.connect(world.database.url);
  await client.query("CREATE SCHEMA moved");
});
afterAll(async () => world?.[Symbol.asyncDispose]());
beforeEach(async () => {
  await client.query(
    "DROP FUNCTION IF EXISTS f(bytea) CASCADE; DROP FUNCTION IF EXISTS g(bytea) CASCADE; SELECT hawser.prune_handlers()",
  );
  await client.query(f);
});

it("a renamed or moved function is shown and found by its current name", async () => {
  await client.query("SELECT nats_subscribe('s', 'f')");
  await client.query("ALTER FUNCTION f(bytea) RENAME TO g");
  expect(await world.subscriptions()).toEqual(["s public.g(bytea)"]);
  await client.query("SELECT nats_subscribe('s', 'g')");
  expect(await world.bound("s")).toHaveLength(1);
  await client.query("ALTER FUNCTION g(bytea) SET SCHEMA moved");
  expect(await world.subscriptions()).toEqual(["s moved.g(bytea)"]);
  await client.query("SELECT nats_unsubscribe('s', 'moved.g')");
  expect(await world.subscriptions()).toEqual([]);
  await client.query("DROP FUNCTION moved.g(bytea)");
});

it("a new function of the old name is another subscription", async () => {
  await client.query("SELECT nats_subscribe('s', 'f')");
  await client.query("ALTER FUNCTION f(bytea) RENAME TO g");
  await client.query(f);
  await client.query("SELECT nats_subscribe('s', 'f')");
  expect(await world.subscriptions()).toEqual(["s public.f(bytea)", "s public.g(bytea)"]);
  await client.query("SELECT nats_unsubscribe('s', 'f')");
  expect(await world.subscriptions()).toEqual(["s public.g(bytea)"]);
});

it("a subscription whose function was dropped while it was made is not there, and can be made again", async () => {
  await client.query("BEGIN; SELECT nats_subscribe('s', 'f')");
  await other.query("DROP FUNCTION f(bytea)");
  await client.query("COMMIT");
  expect(await world.subscriptions()).toEqual([]);
  expect(await world.rows("SELECT pruned FROM hawser.prune_handlers()")).toEqual([{ pruned: 1 }]);
  await client.query(f);
  await client.query("SELECT nats_subscribe('s', 'f')");
  expect(await world.subscriptions()).toEqual(["s public.f(bytea)"]);
  // What is left of the first one is swept up.
  expect(
    await world.rows("SELECT FROM pg_proc WHERE pronamespace = 'hawser_run'::regnamespace AND pronargs > 0"),
  ).toHaveLength(1);
});

it("what is left of very many subscriptions is swept up by those that follow", async () => {
  await client.query("SELECT nats_subscribe('s', 'f')");
  await client.query(`DO $$BEGIN
    FOR n IN 1..400 LOOP EXECUTE format('CREATE TYPE hawser_run.token_%s AS ENUM ()', left(md5(n::text), 16)); END LOOP; END$$`);
  const types = async (): Promise<number> =>
    (await world.rows("SELECT FROM pg_type WHERE typnamespace = 'hawser_run'::regnamespace AND typtype = 'e'")).length;
  const before = await types();
  await client.query("SELECT nats_subscribe('first', 'f')");
  // A sixteenth of them, more or less.
  const after = await types();
  expect(after).toBeLessThan(before);
  expect(after).toBeGreaterThan(before / 2);
  let subscribed = 2;
  for (; (await types()) > subscribed && subscribed < 150; subscribed++) {
    await client.query(`SELECT nats_subscribe('more.${subscribed}', 'f')`);
  }
  // Nothing that is in use.
  expect(await types()).toBe(subscribed);
  expect(await world.subscriptions()).toHaveLength(subscribed);
});

it("a function cannot end what calls it, nor put another one in its place", async () => {
  await client.query(`
    CREATE OR REPLACE FUNCTION g(payload bytea) RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM public.nats_unsubscribe('self', 'public.g'); END$$;
    CREATE OR REPLACE FUNCTION answers(payload bytea) RETURNS bytea LANGUAGE plpgsql
      AS $$BEGIN PERFORM public.litmus_pgnats_register_responder('self.answers', 'public.echo'); RETURN payload; END$$;
    CREATE OR REPLACE FUNCTION echo(payload bytea) RETURNS bytea LANGUAGE sql AS 'SELECT payload';
    SELECT nats_subscribe('self', 'g'), litmus_pgnats_register_responder('self.answers', 'answers')`);
  const executor = await world.connectExecutor();
  const [[self], [answers]] = [await world.bound("self"), await world.bound("self.answers")];
  await expect(deliver(executor, self!, [{ payload: Buffer.from("x") }])).rejects.toMatchObject({
    code: "0A000",
    message: expect.stringContaining("cannot end itself"),
  });
  await expect(ask(executor, answers!, Buffer.from("x"))).rejects.toMatchObject({
    code: "0A000",
    message: expect.stringContaining("cannot replace itself"),
  });
  await client.query("SELECT nats_unsubscribe('self', 'g'), litmus_pgnats_unregister_responder('self.answers')");
});

it.each(["REPEATABLE READ", "SERIALIZABLE"])("in %s nothing is subscribed or registered", async (level) => {
  for (const call of [
    "nats_subscribe('s', 'f')",
    "nats_unsubscribe('s', 'f')",
    "litmus_pgnats_unregister_responder('s')",
  ]) {
    await other.query(`BEGIN ISOLATION LEVEL ${level}`);
    expect(await errorOf(other, `SELECT ${call}`)).toMatchObject({
      code: "25000",
      message: expect.stringContaining("READ COMMITTED"),
    });
    await other.query("ROLLBACK");
  }
});
