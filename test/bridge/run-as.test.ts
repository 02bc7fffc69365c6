/**
 * As which role subscribed functions run: the one that subscribed, also where the wrapper is given to another role, or granted to it, while
 * messages come. The tests run side by side.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { slowDescribe } from "../support/slow-it.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let world: BridgeWorld;

beforeAll(async () => {
  world = await bridgeWorld({
    sql: `
      CREATE TABLE seen (id bigserial, subject text, who text, session text);
      GRANT INSERT ON seen TO PUBLIC;
      GRANT USAGE ON SEQUENCE seen_id_seq TO PUBLIC;
      CREATE FUNCTION look(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE sql AS $$
        INSERT INTO seen (subject, who, session) SELECT subject, current_user, session_user WHERE headers IS NULL $$;
    `,
  });
});
afterAll(async () => world?.[Symbol.asyncDispose]());

async function seen(subject: string): Promise<Record<string, unknown>> {
  world.nats.publish(subject, "x");
  await eventually(
    "it has run",
    async () => (await world.count(`SELECT count(*) FROM seen WHERE subject = '${subject}'`)) > 0,
  );
  const [row] = await world.rows("SELECT who, session FROM seen WHERE subject = $1", [subject]);
  return row!;
}

describe.concurrent("a subscribed function runs as", () => {
  it("the role that subscribed, and not as the session's login, which is the executor", async () => {
    const user = await world.user();
    const subject = `${world.prefix}.user`;
    await user.client.query("SELECT nats_subscribe($1, 'look')", [subject]);
    await world.live(subject);
    const executor = await world.value("SELECT user_name FROM hawser_bridge_data.executor_login");
    expect(await seen(subject)).toMatchObject({ who: user.role, session: executor });
  });

  it("each role that has subscribed it to the same subject", async () => {
    const [one, other] = [await world.user(), await world.user()];
    const subject = `${world.prefix}.two`;
    for (const { client } of [one, other]) await client.query("SELECT nats_subscribe($1, 'look')", [subject]);
    await world.live(subject);
    // Both are there when the second one's commit has been read.
    await world.subscribe(`${subject}.later`, "look(bytea, text, jsonb)");
    world.nats.publish(subject, "x");
    await world.counts(2, `SELECT count(*) FROM seen WHERE subject = '${subject}'`);
    const rows = await world.rows<{ who: string }>("SELECT who FROM seen WHERE subject = $1", [subject]);
    expect(rows.map(({ who }) => who).sort()).toEqual([one.role, other.role].sort());
  });

  it("the owner of the function, if that is SECURITY DEFINER", async () => {
    const user = await world.user();
    await world.client.query(`
      CREATE FUNCTION defined(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE sql SECURITY DEFINER AS $$
        INSERT INTO seen (subject, who) SELECT subject, current_user WHERE headers IS NULL $$`);
    const subject = `${world.prefix}.definer`;
    await user.client.query("SELECT nats_subscribe($1, 'defined')", [subject]);
    await world.live(subject);
    expect(await seen(subject)).toMatchObject({ who: "postgres" });
  });

  it("the role that subscribed only while that may subscribe", async () => {
    const user = await world.user();
    const subject = `${world.prefix}.former`;
    await user.client.query("SELECT nats_subscribe($1, 'look')", [subject]);
    await world.live(subject);
    await world.client.query(`REVOKE hawser_nats FROM ${user.role}`);
    // Whatever changes is read together.
    await world.subscribe(`${subject}.later`, "look(bytea, text, jsonb)");
    await eventually("nobody hears", async () => !(await world.hears(subject)));
    await world.client.query(`GRANT hawser_nats TO ${user.role}`);
    await world.subscribe(`${subject}.again`, "look(bytea, text, jsonb)");
    await world.live(subject);
    expect(await seen(subject)).toMatchObject({ who: user.role });
  });

  it("somebody who may do nothing any more, once that was revoked: the messages are dead letters", async () => {
    const user = await world.user();
    await world.client.query(`
      CREATE FUNCTION revocable(payload bytea) RETURNS void LANGUAGE sql AS '';
      REVOKE ALL ON FUNCTION revocable(bytea) FROM PUBLIC; GRANT EXECUTE ON FUNCTION revocable(bytea) TO ${user.role}`);
    const subject = `${world.prefix}.revoked`;
    await user.client.query("SELECT nats_subscribe($1, 'revocable')", [subject]);
    await world.live(subject);
    await world.client.query(`REVOKE ALL ON FUNCTION revocable(bytea) FROM ${user.role}`);
    world.nats.publish(subject, "too late");
    await world.counts(1, "SELECT count(*) FROM hawser_data.dead_letters WHERE payload = 'too late'");
    expect(
      await world.rows(
        "SELECT source, topic, error_code, error_message, attempts FROM hawser_data.dead_letters WHERE payload = 'too late'",
      ),
    ).toEqual([
      {
        source: "public.revocable(bytea)",
        topic: subject,
        error_code: "42501",
        error_message: "permission denied for function revocable",
        attempts: 1,
      },
    ]);
  });
});

const deadLetters = (subject: string) =>
  world.rows("SELECT error_code, error_message FROM hawser_data.dead_letters WHERE topic = $1", [subject]);

/** Makes the function, and subscribes it. */
async function subscribed(owner: Awaited<ReturnType<BridgeWorld["user"]>>, name: string): Promise<void> {
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

slowDescribe.concurrent("a wrapper that is changed while messages come", () => {
  it("what is given to another role runs on, as that role, with all that has waited", async () => {
    const before = await world.user();
    const after = await world.user();
    await subscribed(before, "reassigned");
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
    expect(await deadLetters(subject)).toEqual([]);
    expect(await world.rows("SELECT n FROM reassigned ORDER BY n")).toEqual(
      Array.from({ length: published }, (_, n) => ({ n: n + 1 })),
    );
    expect(await world.rows("SELECT who FROM reassigned ORDER BY n DESC LIMIT 1")).toEqual([{ who: after.role }]);
  });

  it("a grant on it while it runs makes it run again, and no dead letter", async () => {
    const owner = await world.user();
    await subscribed(owner, "granted");
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
    expect(await deadLetters(subject)).toEqual([]);
  });
});
