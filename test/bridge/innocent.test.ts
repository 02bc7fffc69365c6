/**
 * Failures that no function causes and that look as if it took too long: the connection to Postgres is lost silently
 * before the call, during it, or at COMMIT. The tests wait most of the time, so they run concurrently.
 */
import { describe, expect, it } from "vitest";
import { type TestDatabase, testServerUrl } from "../support/database.js";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";
import { lossyNetwork } from "./support/lossy-network.js";

const sql = `
  CREATE TABLE ran (n text);
  CREATE FUNCTION note(payload bytea) RETURNS void LANGUAGE sql AS $$INSERT INTO ran VALUES (convert_from(payload, 'UTF8'))$$;
  CREATE FUNCTION answer(payload bytea) RETURNS bytea LANGUAGE sql AS $$SELECT payload$$;
`;

/** Statement timeout of the functions; none takes half of it. */
const subscriberTimeoutMs = 1_000;

const letters = (world: BridgeWorld) =>
  world.rows(
    "SELECT convert_from(payload, 'UTF8') AS payload, error_code, error_message FROM hawser_data.dead_letters",
  );

const times = (world: BridgeWorld, n: string) => world.count(`SELECT count(*) FROM ran WHERE n = '${n}'`);

/** Makes the URL at which the executor's login reaches its database by another route. */
const executorBy = (route: string) => async (database: TestDatabase) => {
  const [login] = await rowsOf(database.url, "SELECT user_name, password FROM hawser_bridge_data.executor_login");
  const url = new URL(database.url);
  url.host = new URL(route).host;
  url.username = String(login!["user_name"]);
  url.password = String(login!["password"]);
  return url.href;
};

type Loses = (proxy: { freeze(): number; freezeAfter(words: string): void }) => void;
/** With `npm test` the first of them. */
const moments: readonly (readonly [when: string, loses: Loses])[] = [
  ["while its function runs", (proxy) => proxy.freezeAfter("called.result")],
  ["before its function is called", (proxy) => expect(proxy.freeze()).toBeGreaterThan(0)],
  ["at COMMIT", (proxy) => proxy.freezeAfter("; COMMIT")],
];

describe.concurrent("the connection with Postgres is lost silently, and", () => {
  it.each(moments.slice(0, atDepth(10)))("a message is run: %s", async (when, loses) => {
    await using proxy = await lossyNetwork(testServerUrl());
    const executorUrl = executorBy(proxy.url);
    await using world = await bridgeWorld({ sql, executorUrl, subscriberTimeoutMs, subscriberSessions: 1 });
    const subject = `${world.prefix}.s`;
    await world.subscribe(subject, "note(bytea)");
    await eventually("a session is kept", async () => (await times(world, "")) > 0);
    loses(proxy);
    world.nats.publish(subject, "innocent");
    await eventually("it has run", async () => (await times(world, "innocent")) > 0, 60_000);
    if (when === "at COMMIT")
      await eventually("it has run again", async () => (await times(world, "innocent")) > 1, 60_000);
    world.nats.publish(subject, "next");
    await eventually("the next one has run", async () => (await times(world, "next")) > 0, 60_000);
    expect(await letters(world)).toEqual([]);
  });

  it("a request is answered by 503, not by a timeout", async () => {
    await using proxy = await lossyNetwork(testServerUrl());
    const serverOptions = { responder_timeout_ms: "1000" };
    await using world = await bridgeWorld({ sql, executorUrl: executorBy(proxy.url), serverOptions });
    const subject = `${world.prefix}.r`;
    await world.client.query("SELECT litmus_pgnats_register_responder($1, 'answer')", [subject]);
    await world.value("SELECT litmus_pgnats_reload_conf()");
    const ask = async () =>
      (await world.nats.request(subject, "x", { timeout: 30_000 })).headers?.get("Nats-Service-Error-Code");
    expect(await ask()).toBeUndefined();
    proxy.freeze();
    expect(await ask()).toBe("503");
    expect(await ask()).toBeUndefined();
  });
});
