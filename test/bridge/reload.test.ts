/**
 * Changes of the NATS server's definition, while messages come and requests are asked all the time: nothing is missed that
 * the server delivered.
 */

import { setTimeout as delay } from "node:timers/promises";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { clusterInterestMs } from "../../src/nats/connections/confirmed.js";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { defineServer } from "../support/gateway.js";
import { startNatsServer, type TestNatsServer } from "../support/nats-server.js";
import { slowIt } from "../support/slow-it.js";
import { TcpProxy } from "../transport/tcp-proxy.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let servers: readonly [TestNatsServer, TestNatsServer];
let route: TcpProxy;
let world: BridgeWorld;

const sql = `
  CREATE TABLE got (n int);
  CREATE FUNCTION capture(payload bytea) RETURNS void LANGUAGE sql
    AS $$INSERT INTO got SELECT convert_from(payload, 'UTF8')::int WHERE payload <> ''$$;
  CREATE FUNCTION answer(payload bytea) RETURNS bytea LANGUAGE sql AS $$SELECT payload || '!'::bytea$$;
`;

beforeAll(async () => {
  const first = await startNatsServer({ config: 'server_name: one\ncluster { name: c, listen: "127.0.0.1:-1" }' });
  const [, clusterPort] = /Listening for route connections on 127\.0\.0\.1:(\d+)/.exec(first.log())!;
  // What one server tells the other takes its time, so that moving from one to the other without waiting loses messages.
  route = await TcpProxy.to(Number(clusterPort), { latencyMs: 50 });
  const second = await startNatsServer({
    config: `server_name: two\ncluster { name: c, listen: "127.0.0.1:-1", routes: ["nats://${route.address}"] }`,
  });
  servers = [first, second];
  await eventually("the servers are a cluster", () => /Route connection created/.test(second.log()));
  world = await bridgeWorld({ natsUrl: first.url, sql });
  // Then all are connected.
  await world.value("SELECT litmus_pgnats_reload_conf()");
  expect(connections()).toBe(ofOneProcess);
});
afterAll(async () => {
  await world?.[Symbol.asyncDispose]();
  for (const server of servers ?? []) await server[Symbol.asyncDispose]();
  await route?.[Symbol.asyncDispose]();
});

/** Number of times that this process has connected to NATS. */
function connections(): number {
  return world.log.lines.filter(({ message }) => message === "connected to NATS").length;
}

interface Stream {
  /** Ends it. @returns what was published and asked, and how many requests had no answer */
  stop(): Promise<{ readonly published: number; readonly asked: number; readonly failed: unknown[] }>;
}

/** Between two messages, and between two requests. */
const pauseMs = 20 / atDepth(20);

/** Publishes numbers and asks, all the time. */
function traffic(nats: NatsConnection, subject: string, asked: string): Stream {
  let isOver = false;
  let published = 0;
  let requests = 0;
  const failed: unknown[] = [];
  const publishing = (async () => {
    while (!isOver) {
      nats.publish(subject, `${++published}`);
      await nats.flush();
      await delay(pauseMs);
    }
  })();
  const asking = (async () => {
    while (!isOver) {
      requests += 1;
      await nats.request(asked, `${requests}`, { timeout: 20_000 }).then(
        (reply) => {
          if (reply.string() !== `${requests}!`) failed.push(reply.string(), reply.headers?.toString());
        },
        (error: unknown) => failed.push(error),
      );
      await delay(pauseMs);
    }
  })();
  return {
    async stop() {
      isOver = true;
      await publishing;
      await asking;
      return { published, asked: requests, failed };
    },
  };
}

/** Nothing of what is published and asked over that connection while it changes something is missing. */
async function nothingIsMissing(word: string, nats: NatsConnection, change: () => Promise<void>): Promise<void> {
  const [subject, asked] = [`${world.prefix}.${word}`, `${world.prefix}.${word}.asked`];
  await world.client.query("TRUNCATE got");
  await world.subscribe(subject, "capture(bytea)");
  await world.client.query("SELECT litmus_pgnats_register_responder($1, 'answer')", [asked]);
  await world.live(asked);
  for (const each of [subject, asked]) await world.live(each, nats);
  const running = traffic(nats, subject, asked);
  await change();
  const { published, asked: requests, failed } = await running.stop();
  const distinct = "SELECT count(DISTINCT n) FROM got";
  await world.counts(published, distinct);
  const repeated = (await world.count("SELECT count(*) FROM got")) - published;
  console.info(`${word}: ${published} messages, ${repeated} repeated; ${requests} requests`);
  expect(failed).toEqual([]);
}

/** Connections to NATS: of the gateway, the subscriptions, the responders and the outbox. */
const ofOneProcess = 5;

describe("litmus_pgnats_reload_conf()", () => {
  it("does nothing if nothing has changed", async () => {
    const before = connections();
    for (let n = 0; n < 3; n++) await world.value("SELECT litmus_pgnats_reload_conf()");
    expect(connections()).toBe(before);
  });

  it("_force() has reconnected when it returns, for SQL, subscriptions, responders and the outbox", async () => {
    const before = connections();
    await world.value("SELECT litmus_pgnats_reload_conf_force()");
    expect(connections()).toBe(before + ofOneProcess);
  });

  it("returns when what has changed is in use, or reports why it is not", async () => {
    const before = connections();
    const subject = `${world.prefix}.changed`;
    await world.subscribe(subject, "capture(bytea)");
    await defineServer(world.client, servers[0].url, { username: "x", password: "y" });
    await world.value("SELECT litmus_pgnats_reload_conf()");
    expect(connections()).toBe(before + ofOneProcess);
    expect(await world.hears(subject)).toBe(true);
    await defineServer(world.client, "nats://127.0.0.1:1");
    expect(await world.errorOf("SELECT litmus_pgnats_reload_conf()")).toMatchObject({
      code: expect.stringMatching(/^08/),
    });
    expect(await world.errorOf("SELECT litmus_pgnats_reload_conf_force()")).toMatchObject({
      code: expect.stringMatching(/^08/),
    });
    await defineServer(world.client, servers[0].url);
    await world.value("SELECT litmus_pgnats_reload_conf()");
    expect(await world.hears(subject)).toBe(true);
  });

  it("is an error in a transaction that has changed subscriptions or responders, until that is rolled back", async () => {
    const { client, prefix } = world;
    await world.subscribe(`${prefix}.kept`, "capture(bytea)");
    await client.query("BEGIN");
    await client.query("SAVEPOINT before");
    for (const change of [
      `SELECT nats_subscribe('${prefix}.open', 'capture')`,
      `SELECT nats_unsubscribe('${prefix}.kept', 'capture(bytea)'::regprocedure)`,
      `SELECT litmus_pgnats_register_responder('${prefix}.open', 'answer')`,
    ]) {
      await client.query(change);
      await client.query("SAVEPOINT changed");
      const error: unknown = await client
        .query("SELECT litmus_pgnats_reload_conf()")
        .catch((thrown: unknown) => thrown);
      expect(error, change).toMatchObject({ code: "25001", hint: "COMMIT first, then reload." });
      await client.query("ROLLBACK TO before");
      await client.query("SELECT litmus_pgnats_reload_conf()");
    }
    await client.query("ROLLBACK");
  });

  it("reports why, where only the connection of subscriptions or responders is refused", async () => {
    await using server = await startNatsServer({ config: "max_connections: 1" });
    await using own = await bridgeWorld({ natsUrl: servers[0].url });
    await defineServer(own.client, server.url);
    expect(await own.errorOf("SELECT litmus_pgnats_reload_conf()")).toMatchObject({
      code: expect.stringMatching(/^(08|28|53)/),
    });
  });
});

describe("messages and requests of all the time", () => {
  it("are all handled during forced reloads", () =>
    nothingIsMissing("forced", world.nats, async () => {
      const before = connections();
      const times = Math.max(3, atDepth(20));
      for (let n = 0; n < times; n++) await world.value("SELECT litmus_pgnats_reload_conf_force()");
      expect(connections()).toBe(before + ofOneProcess * times);
    }));

  slowIt(
    "are all handled during 3 changes of the server, of a cluster whose servers are slow to tell each other",
    async () => {
      const far = await connect({ servers: servers[1].url });
      onTestFinished(() => far.close());
      await nothingIsMissing("moved", far, async () => {
        for (let n = 1; n <= 3; n++) {
          await defineServer(world.client, servers[n % 2]!.url);
          await world.value("SELECT litmus_pgnats_reload_conf()");
          const name = await world.value("SELECT server_name FROM nats_get_server_info()");
          expect(name).toBe(["one", "two"][n % 2]);
          // As long as the old subscriptions stay, and then some.
          const goesOnUntil = performance.now() + clusterInterestMs + 300;
          await eventually("they are gone", () => performance.now() > goesOnUntil);
        }
      });
      await defineServer(world.client, servers[0].url);
      await world.value("SELECT litmus_pgnats_reload_conf()");
    },
  );
});

describe("CREATE, ALTER and DROP SERVER", () => {
  it("are followed without a reload", async () => {
    await using own = await bridgeWorld({ natsUrl: servers[0].url, serverOptions: false, sql });
    const subject = `${own.prefix}.followed`;
    await own.client.query("SELECT nats_subscribe($1, 'capture')", [subject]);
    const { host, port } = servers[0];
    await own.client.query(
      `CREATE SERVER s FOREIGN DATA WRAPPER litmus_pgnats_fdw OPTIONS (host '${host}', port '${port}')`,
    );
    await own.live(subject);
    const names = () =>
      own.log.lines
        .filter(({ message }) => message === "connected to NATS")
        .map(({ details }) => (details as { server?: string }).server);
    await eventually("all are connected", () => names().length === 5);
    await own.client.query(`ALTER SERVER s OPTIONS (SET port '${servers[1].port}')`);
    await eventually("all have moved", () => names().length === 10);
    expect(names().slice(5)).toEqual(Array(5).fill(expect.stringContaining(`${servers[1].port}`)));
    await own.live(subject);
    await own.client.query("DROP SERVER s");
    await eventually("nobody hears", async () => !(await own.hears(subject)));
  });
});
