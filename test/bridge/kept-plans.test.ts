/**
 * A session of functions keeps the plans of one batch for the next. What they were made for may have changed meanwhile: the
 * type of what a function reads, and who may call its wrapper.
 */
import { inspect } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let world: BridgeWorld;
let subject: string;

beforeAll(async () => {
  world = await bridgeWorld({
    subscriberSessions: 1,
    sql: `
      CREATE TABLE account (balance integer);
      INSERT INTO account VALUES (7);
      CREATE TABLE noted (n text, balance numeric, pid integer);
      CREATE FUNCTION note(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
      DECLARE
        r record;
      BEGIN
        SELECT * INTO r FROM public.account;
        INSERT INTO public.noted SELECT convert_from(payload, 'UTF8'), r.balance, pg_backend_pid() WHERE payload <> '';
      END $$`,
  });
  subject = `${world.prefix}.note`;
  await world.subscribe(subject, "note(bytea)");
});
afterAll(async () => world?.[Symbol.asyncDispose]());

const noted = (n: string) => eventually(`${n} is noted`, async () => (await pidsOf(n)).length === 1);
const pidsOf = async (n: string) =>
  (await world.rows<{ pid: number }>("SELECT pid FROM noted WHERE n = $1", [n])).map(({ pid }) => pid);
const deadLetters = () => world.count("SELECT count(*) FROM hawser_data.dead_letters");

it("a function runs in the same session after the type of what it reads was changed, and nothing becomes a dead letter", async () => {
  for (const n of ["1", "2"]) {
    world.nats.publish(subject, n);
    await noted(n);
  }
  await world.client.query("ALTER TABLE account ALTER balance TYPE bigint");
  world.nats.publish(subject, "3");
  await eventually("3 is noted, or given up", async () => (await pidsOf("3")).length + (await deadLetters()) > 0);
  expect(await deadLetters()).toBe(0);
  const [[first], [second], [third]] = [await pidsOf("1"), await pidsOf("2"), await pidsOf("3")];
  expect([second, third]).toEqual([first, first]);
});

it("messages of a function that may not be called any more wait until it may", async () => {
  const [{ wrapper }] = (await world.rows<{ wrapper: string }>(
    "SELECT oid::regprocedure::text AS wrapper FROM pg_proc WHERE pronamespace = 'hawser_run'::regnamespace",
  )) as [{ wrapper: string }];
  await world.client.query(`REVOKE EXECUTE ON FUNCTION ${wrapper} FROM hawser_executor`);
  world.nats.publish(subject, "4");
  await eventually("it is said why", () =>
    /note: SQLSTATE 42501/.test(inspect(world.log.lines, { maxArrayLength: null })),
  );
  expect([await pidsOf("4"), await deadLetters()]).toEqual([[], 0]);
  await world.client.query(`GRANT EXECUTE ON FUNCTION ${wrapper} TO hawser_executor`);
  await noted("4");
  expect(await deadLetters()).toBe(0);
});
