/**
 * Functions of a role whose subjects overlap: one NATS subscription serves all that it covers.
 */
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let world: BridgeWorld;

beforeAll(async () => {
  world = await bridgeWorld({
    sql: `
      CREATE TABLE ran (n bigserial, who text, payload text);
      CREATE FUNCTION by_one(p bytea) RETURNS void LANGUAGE sql AS $$INSERT INTO public.ran (who, payload) VALUES ('one', convert_from(p, 'UTF8'))$$;
      CREATE FUNCTION by_other(p bytea) RETURNS void LANGUAGE sql AS $$INSERT INTO public.ran (who, payload) VALUES ('other', convert_from(p, 'UTF8'))$$;
      CREATE FUNCTION by_third(p bytea) RETURNS void LANGUAGE sql AS $$INSERT INTO public.ran (who, payload) VALUES ('third', convert_from(p, 'UTF8'))$$;
      CREATE FUNCTION by_covering(p bytea) RETURNS void LANGUAGE sql AS '';
      GRANT INSERT ON ran TO PUBLIC; GRANT USAGE ON SEQUENCE ran_n_seq TO PUBLIC`,
  });
});
afterAll(() => world?.[Symbol.asyncDispose]());
beforeEach(async () => {
  await world.client.query("TRUNCATE ran");
});

/** Messages that each function has run, in order, without earlier ones. */
async function ran(): Promise<Record<string, string[]>> {
  const rows = await world.rows<{ who: string; payloads: string[] }>(
    "SELECT who, array_agg(payload ORDER BY n) AS payloads FROM ran WHERE payload <> '' GROUP BY who",
  );
  return Object.fromEntries(rows.map(({ who, payloads }) => [who, payloads]));
}

describe("subscriptions of one role that overlap", () => {
  it("each get each message once, in order, and none of what they have not subscribed to", async () => {
    const at = `${world.prefix}.calm`;
    await world.subscribe(`${at}.>`, "by_one(bytea)", `${at}.probe`);
    await world.subscribe(`${at}.*`, "by_other(bytea)", `${at}.probe`);
    await world.subscribe(`${at}.a`, "by_third(bytea)", `${at}.a`);
    await world.rows("SELECT litmus_pgnats_reload_conf()");
    const sent = Array.from({ length: 300 }, (_, n) => ({ subject: ["a", "b", "a.b"][n % 3]!, payload: `${n}` }));
    for (const { subject, payload } of sent) world.nats.publish(`${at}.${subject}`, payload);
    const expected = (...subjects: string[]) =>
      sent.filter(({ subject }) => subjects.includes(subject)).map(({ payload }) => payload);
    await eventually("all have run", async () => {
      const { one, other, third } = await ran();
      return [one, other, third].every((payloads) => payloads !== undefined && Number(payloads.at(-1)) >= 297);
    });
    expect(await ran()).toEqual({ one: expected("a", "b", "a.b"), other: expected("a", "b"), third: expected("a") });
  });

  it("lose nothing, and keep their order, while one that covers the others comes and goes; another role notices nothing", async () => {
    const at = `${world.prefix}.busy`;
    const user = await world.user();
    await world.subscribe(`${at}.a`, "by_one(bytea)");
    await user.client.query("SELECT nats_subscribe($1, 'public.by_other(bytea)'::regprocedure)", [`${at}.a`]);
    await world.rows("SELECT litmus_pgnats_reload_conf()");
    let isChanging = true;
    const changing = (async () => {
      for (let times = 0; times < 4; times += 1) {
        await world.rows("SELECT nats_subscribe($1, 'by_covering(bytea)'::regprocedure)", [`${at}.>`]);
        await world.rows("SELECT litmus_pgnats_reload_conf()");
        await world.rows("SELECT nats_unsubscribe($1, 'by_covering(bytea)'::regprocedure)", [`${at}.>`]);
        await world.rows("SELECT litmus_pgnats_reload_conf()");
      }
      isChanging = false;
    })();
    const sent: string[] = [];
    while (isChanging) {
      for (let n = 0; n < 20; n += 1) {
        sent.push(`${sent.length}`);
        world.nats.publish(`${at}.a`, sent.at(-1)!);
      }
      await world.nats.flush();
      await delay(5);
    }
    await changing;
    await eventually("the last one has run", async () => {
      const { one, other } = await ran();
      return one?.at(-1) === sent.at(-1) && other?.at(-1) === sent.at(-1);
    });
    const { one, other } = await ran();
    expect(other).toEqual(sent);
    // Once for the messages of a moment in which both subscriptions were there.
    expect([...new Set(one)]).toEqual(sent);
  });
});

it("a role has no more subscriptions than the option allows, and is told how to have more", async () => {
  const { options } = (await world.rows<{ options: object }>("SELECT options FROM hawser_bridge_data.nats_server"))[0]!;
  const set = (more: object) =>
    world.rows("SELECT hawser.set_nats_server($1)", [JSON.stringify({ ...options, ...more })]);
  const user = await world.user();
  const subscribe = (n: number) =>
    user.client.query("SELECT nats_subscribe($1, 'public.by_other(bytea)'::regprocedure)", [
      `${world.prefix}.limit.${n}`,
    ]);
  await set({ max_role_subscriptions: "3" });
  for (const n of [1, 2, 3]) await subscribe(n);
  await expect(subscribe(4)).rejects.toMatchObject({
    code: "54000",
    message: expect.stringContaining("has 3 subscriptions, as many as a role may have"),
    hint: expect.stringContaining("raise the option max_role_subscriptions of the server"),
  });
  // What is there already is no further one; another role has its own; and one that goes makes room.
  await subscribe(3);
  const third = await world.user();
  await third.client.query("SELECT nats_subscribe($1, 'public.by_one(bytea)'::regprocedure)", [
    `${world.prefix}.limit`,
  ]);
  await user.client.query("SELECT nats_unsubscribe($1, 'public.by_other(bytea)'::regprocedure)", [
    `${world.prefix}.limit.1`,
  ]);
  await subscribe(4);
  await set({});
  await subscribe(5);
});
