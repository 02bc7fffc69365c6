/**
 * Wrappers that somebody changes while messages come: another owner, other grants. Nothing is the fault of a message.
 */
import { afterAll, beforeAll, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let world: BridgeWorld;

beforeAll(async () => {
  world = await bridgeWorld();
});
afterAll(async () => world?.[Symbol.asyncDispose]());

const deadLetters = () => world.rows("SELECT error_code, error_message FROM hawser.dead_letters");

async function function_(owner: Awaited<ReturnType<BridgeWorld["user"]>>, name: string): Promise<void> {
  await world.client.query(`
    CREATE TABLE public.${name} (n int, who text);
    GRANT INSERT ON public.${name} TO PUBLIC`);
  await owner.client.query(`
    CREATE FUNCTION ${name}(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      IF payload <> '' THEN
        IF payload = '0' THEN PERFORM pg_sleep(1); END IF;
        INSERT INTO public.${name} SELECT convert_from(payload, 'UTF8')::int, current_user;
      END IF;
    END $$`);
  await owner.client.query(`SELECT nats_subscribe('${world.prefix}.${name}', '${name}')`);
  await world.live(`${world.prefix}.${name}`);
}

it("what is given to another role runs on, as that role, with all that has waited", async () => {
  const before = await world.user();
  const after = await world.user();
  await function_(before, "reassigned");
  const subject = `${world.prefix}.reassigned`;
  let published = 0;
  const more = async (count: number): Promise<void> => {
    for (const last = published + count; published < last; ) world.nats.publish(subject, `${++published}`);
    await world.nats.flush();
  };
  await more(100);
  await world.client.query(`REASSIGN OWNED BY ${before.role} TO ${after.role}`);
  await more(100);
  await eventually("all have run", async () => (await world.count("SELECT count(*) FROM reassigned")) >= published);
  expect(await deadLetters()).toEqual([]);
  expect(await world.rows("SELECT n FROM reassigned ORDER BY n")).toEqual(
    Array.from({ length: published }, (_, n) => ({ n: n + 1 })),
  );
  expect(await world.rows("SELECT who FROM reassigned ORDER BY n DESC LIMIT 1")).toEqual([{ who: after.role }]);
});

it("a grant on it while it runs makes it run again, and no dead letter", async () => {
  const owner = await world.user();
  await function_(owner, "granted");
  const subject = `${world.prefix}.granted`;
  world.nats.publish(subject, "0");
  await eventually("it runs", async () => {
    const sleeping =
      "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    return (await world.count(sleeping)) === 1;
  });
  const wrapper = await world.rows<{ name: string }>(
    "SELECT oid::regprocedure::text AS name FROM pg_proc WHERE pronamespace = 'hawser_run'::regnamespace AND proname LIKE '%granted%'",
  );
  await world.client.query(`GRANT EXECUTE ON FUNCTION ${wrapper[0]!.name} TO ${owner.role}`);
  await eventually("it has run", async () => (await world.count("SELECT count(*) FROM granted")) > 0);
  expect(await world.rows("SELECT n FROM granted")).toEqual([{ n: 0 }]);
  expect(await deadLetters()).toEqual([]);
});
