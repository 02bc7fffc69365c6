/**
 * What happens to a message by no fault of its function, and looks as if the function took too long: the process stands still
 * while it runs; the connection with Postgres is lost without a word, before it is called, while it runs, or at COMMIT.
 */
import { performance } from "node:perf_hooks";
import { describe, expect, it } from "vitest";
import { Serve } from "../../src/serve/index.js";
import { ServeProcess } from "../faults/support/serve-process.js";
import { eventually } from "../support/eventually.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";
import { halfOpenProxy } from "./support/half-open-proxy.js";

const sql = `
  CREATE TABLE ran (n text);
  CREATE FUNCTION note(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
  BEGIN
    IF payload = 'slow' THEN PERFORM pg_sleep(1); END IF;
    INSERT INTO ran VALUES (convert_from(payload, 'UTF8'));
  END $$;
  CREATE FUNCTION answer(payload bytea) RETURNS bytea LANGUAGE sql AS $$SELECT payload$$;
`;

/** Statement timeout of the functions; none takes half of it. */
const subscriberTimeoutMs = 3_000;

const letters = (world: BridgeWorld) =>
  world.rows("SELECT convert_from(payload, 'UTF8') AS payload, error_code, error_message FROM hawser.dead_letters");

const times = (world: BridgeWorld, n: string) => world.count(`SELECT count(*) FROM ran WHERE n = '${n}'`);

/** Where the login of the functions reaches the server by another way. */
async function executorUrl(world: BridgeWorld, by: string): Promise<string> {
  const [login] = await world.rows<{ user: string; password: string }>(
    `SELECT user_name AS "user", password FROM hawser.executor_login`,
  );
  const url = new URL(by);
  url.username = login!.user;
  url.password = login!.password;
  return url.href;
}

describe("the connection with Postgres is lost without a word, and the message is run", () => {
  it.each([
    ["before its function is called", (proxy: { freeze(): number }) => expect(proxy.freeze()).toBeGreaterThan(0)],
    ["while its function runs", (proxy: { freezeAfter(words: string): void }) => proxy.freezeAfter("called.result")],
    ["at COMMIT", (proxy: { freezeAfter(words: string): void }) => proxy.freezeAfter("; COMMIT")],
  ])("%s", async (when, lose) => {
    await using world = await bridgeWorld({ sql });
    await world.serve.stop();
    await using proxy = await halfOpenProxy(world.database.url);
    await using _serve = await Serve.start({
      databaseUrl: world.database.url,
      executorUrl: await executorUrl(world, proxy.url),
      gatewayListen: "127.0.0.1:0",
      subscriberTimeoutMs,
      subscriberSessions: 1,
    });
    const subject = `${world.prefix}.s`;
    await world.subscribe(subject, "note(bytea)");
    await eventually("a session is kept", async () => (await times(world, "")) > 0);
    lose(proxy);
    world.nats.publish(subject, "innocent");
    await eventually("it has run", async () => (await times(world, "innocent")) > 0, 60_000);
    if (when === "at COMMIT")
      await eventually("it has run again", async () => (await times(world, "innocent")) > 1, 60_000);
    world.nats.publish(subject, "next");
    await eventually("the next one has run", async () => (await times(world, "next")) > 0, 60_000);
    expect(await letters(world)).toEqual([]);
  });
});

it("a request whose connection with Postgres is lost is answered by 503, not by a timeout", async () => {
  await using world = await bridgeWorld({ sql });
  await world.serve.stop();
  await using proxy = await halfOpenProxy(world.database.url);
  await using _serve = await Serve.start({
    databaseUrl: world.database.url,
    executorUrl: await executorUrl(world, proxy.url),
    gatewayListen: "127.0.0.1:0",
  });
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

it("the process stands still for longer than a function may take: its message has run, once", async () => {
  await using world = await bridgeWorld({ sql });
  await world.serve.stop();
  const timeout = ["--subscriber-timeout-ms", String(subscriberTimeoutMs)];
  await using serve = await ServeProcess.start(world.database.url, timeout);
  const subject = `${world.prefix}.s`;
  await world.subscribe(subject, "note(bytea)");
  world.nats.publish(subject, "slow");
  await eventually("its function runs", async () => {
    const sleeping =
      "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    return (await world.count(sleeping)) === 1;
  });
  serve.signal("SIGSTOP");
  const since = performance.now();
  // Beyond the statement timeout and all patience that is added to it.
  await eventually("all time limits are over", () => performance.now() - since > 3 * subscriberTimeoutMs, 60_000);
  serve.signal("SIGCONT");
  world.nats.publish(subject, "next");
  await eventually("the next one has run", async () => (await times(world, "next")) === 1, 60_000);
  expect(await letters(world)).toEqual([]);
  expect(await times(world, "slow")).toBe(1);
});
