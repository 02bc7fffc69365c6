/**
 * Whom subscribed functions run as: whoever subscribed, with his path, whatever he was called as.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let world: BridgeWorld;

beforeAll(async () => {
  world = await bridgeWorld({
    sql: `
      CREATE TABLE seen (id bigserial, subject text, who text, session text, path text, config text, extra text);
      GRANT INSERT ON seen TO PUBLIC;
      GRANT USAGE ON SEQUENCE seen_id_seq TO PUBLIC;
      CREATE FUNCTION look(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE sql AS $$
        INSERT INTO seen (subject, who, session, path)
        SELECT subject, current_user, session_user, current_setting('search_path') WHERE headers IS NULL $$;
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
  const [row] = await world.rows("SELECT who, session, path, extra FROM seen WHERE subject = $1", [subject]);
  return row!;
}

describe("a subscribed function runs as", () => {
  it("the role that subscribed, and not as the session's login, which is the executor", async () => {
    const user = await world.user();
    const subject = `${world.prefix}.user`;
    await user.client.query("SELECT nats_subscribe($1, 'look')", [subject]);
    await world.live(subject);
    const executor = await world.value("SELECT user_name FROM hawser.executor_login");
    expect(await seen(subject)).toMatchObject({ who: user.role, session: executor });
  });

  it("the role of SET ROLE, where that has subscribed", async () => {
    const user = await world.user();
    const group = `${user.role}_group`;
    await world.client.query(
      `CREATE ROLE ${group} NOLOGIN; GRANT ${group} TO ${user.role}; GRANT hawser_nats TO ${group}`,
    );
    try {
      const subject = `${world.prefix}.setrole`;
      await user.client.query(`SET ROLE ${group}`);
      await user.client.query("SELECT nats_subscribe($1, 'look')", [subject]);
      await user.client.query("RESET ROLE");
      await world.live(subject);
      expect(await seen(subject)).toMatchObject({ who: group });
      // By membership it may be ended, too.
      await user.client.query("SELECT nats_unsubscribe($1, 'look')", [subject]);
      await eventually("nobody hears", async () => !(await world.hears(subject)));
    } finally {
      await world.client.query(`DROP OWNED BY ${group} CASCADE; DROP ROLE ${group}`);
    }
  });

  it("each role that has subscribed it to the same subject", async () => {
    const [one, other] = [await world.user(), await world.user()];
    const subject = `${world.prefix}.two`;
    for (const { client } of [one, other]) await client.query("SELECT nats_subscribe($1, 'look')", [subject]);
    await world.live(subject);
    // Both are there when the second one's commit has been read.
    await world.subscribe(`${subject}.later`, "look(bytea, text, jsonb)");
    world.nats.publish(subject, "x");
    await eventually(
      "both have run",
      async () => (await world.count(`SELECT count(*) FROM seen WHERE subject = '${subject}'`)) === 2,
    );
    const rows = await world.rows<{ who: string }>("SELECT who FROM seen WHERE subject = $1", [subject]);
    expect(rows.map(({ who }) => who).sort()).toEqual([one.role, other.role].sort());
  });

  it("the owner of the function, where that is SECURITY DEFINER", async () => {
    const user = await world.user();
    await world.client.query(`
      CREATE FUNCTION defined(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE sql SECURITY DEFINER AS $$
        INSERT INTO seen (subject, who) SELECT subject, current_user WHERE headers IS NULL $$`);
    const subject = `${world.prefix}.definer`;
    await user.client.query("SELECT nats_subscribe($1, 'defined')", [subject]);
    await world.live(subject);
    expect(await seen(subject)).toMatchObject({ who: "postgres" });
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
    await eventually("it is a dead letter", async () => {
      return (await world.count("SELECT count(*) FROM hawser.dead_letters WHERE payload = 'too late'")) === 1;
    });
    expect(
      await world.rows(
        "SELECT source, topic, error_code, error_message, attempts FROM hawser.dead_letters WHERE payload = 'too late'",
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

describe("the search_path is that of the subscriber", () => {
  it("when he subscribed, with pg_temp last, and finds his tables and functions", async () => {
    const user = await world.user();
    await user.client.query(`
      CREATE TABLE mine (note text);
      CREATE FUNCTION helper() RETURNS text LANGUAGE sql AS $$SELECT 'mine'$$;
      CREATE FUNCTION writes(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE plpgsql AS $$
      BEGIN
        IF headers IS NULL THEN
          INSERT INTO mine VALUES (helper());
          INSERT INTO public.seen (subject, path) VALUES (subject, current_setting('search_path'));
        END IF;
      END $$`);
    const subject = `${world.prefix}.path`;
    await user.client.query("SELECT nats_subscribe($1, 'writes')", [subject]);
    await user.client.query("SET search_path = public");
    await world.live(subject);
    expect(await seen(subject)).toMatchObject({ path: expect.stringMatching(/pg_temp$/) });
    expect(await world.rows(`SELECT note FROM ${user.role}.mine`)).toEqual([{ note: "mine" }]);
  });
});
