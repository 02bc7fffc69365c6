/**
 * A cluster of three NATS servers whose servers are restarted one after the other, and then die, under load: two processes
 * of `hawser serve` stand on different ones all the time that counts, so that what a server takes along one of them has.
 */
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { expect, it } from "vitest";
import { type HawserServer, serve as startServer } from "../../src/serve/index.js";
import { type KeptLog, keptLog } from "../bridge/role/log.js";
import { type BridgeWorld, bridgeWorld } from "../bridge/support/bridge-world.js";
import { receivedBy } from "../bridge/support/overload.js";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { startNatsCluster, type TestNatsCluster } from "../support/nats-cluster.js";
import type { TestNatsServer } from "../support/nats-server.js";

const sql = `
  CREATE TABLE got (n int);
  CREATE INDEX ON got (n);
  CREATE FUNCTION capture(payload bytea) RETURNS void LANGUAGE sql
    AS $$INSERT INTO got SELECT convert_from(payload, 'UTF8')::int WHERE payload <> ''$$;
`;

/** Publishes numbers at one server after the other; each counts once that server has confirmed it. */
class Publisher {
  published = 0;
  #nats: NatsConnection | undefined;
  #isOver = false;
  readonly #running: Promise<void>;

  readonly #subject: string;
  #next: TestNatsServer;

  constructor(subject: string, next: TestNatsServer) {
    this.#subject = subject;
    this.#next = next;
    this.#running = this.#run();
  }

  /** Resolves when nothing more is published at another server than that. */
  async moveTo(server: TestNatsServer): Promise<void> {
    this.#next = server;
    await eventually("the publisher has moved", () => this.#nats?.getServer() === `${server.host}:${server.port}`);
  }

  async stop(): Promise<number> {
    this.#isOver = true;
    await this.#running;
    return this.published;
  }

  async #run(): Promise<void> {
    while (!this.#isOver) {
      const server = this.#next;
      if (this.#nats?.getServer() !== `${server.host}:${server.port}`) {
        await this.#nats?.close();
        this.#nats = await connect({ servers: server.url, reconnect: false });
      }
      for (let n = 1; n <= 5; n++) this.#nats.publish(this.#subject, `${this.published + n}`);
      await this.#nats.flush();
      this.published += 5;
      // Not as much as there is time for; how much that is, no assertion depends on.
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await this.#nats?.close();
  }
}

/** A process of `hawser serve`, and its log. */
interface Member {
  readonly serve: HawserServer;
  readonly log: KeptLog;
}

/** The two processes of a test: the world's own and a second one. */
async function membersOf(world: BridgeWorld): Promise<AsyncDisposable & { readonly all: readonly Member[] }> {
  const log = keptLog();
  const second = await startServer({
    databaseUrl: world.database.url,
    listen: "127.0.0.1:0",
    monitor: "127.0.0.1:0",
    logger: log.logger,
  });
  return {
    all: [
      { serve: world.serve, log: world.log },
      { serve: second, log },
    ],
    [Symbol.asyncDispose]: () => second[Symbol.asyncDispose](),
  };
}

/** The id of a server that runs: another one after each start. */
async function idOf(server: TestNatsServer): Promise<string | undefined> {
  const nats = await connect({ servers: server.url, reconnect: false }).catch(() => undefined);
  const id = nats?.info?.server_id;
  await nats?.close();
  return id;
}

/** The servers that the processes stand on, that of the leader first; undefined where that server has ended since. */
async function standing(members: readonly Member[], { servers }: TestNatsCluster) {
  const ids = await Promise.all(servers.map(idOf));
  const places = await Promise.all(
    members.map(async ({ serve, log }) => {
      const metrics = await (await fetch(`http://${serve.monitorAddress}/metrics`)).text();
      const connected = log.lines.findLast(
        ({ message, details }) =>
          message === "connected to NATS" && "client" in details && details.client === "hawser subscriptions",
      )?.details as { readonly serverId: string } | undefined;
      const at = connected === undefined ? -1 : ids.indexOf(connected.serverId);
      return { leads: /^hawser_bridge_leading(\{.*\})? 1$/m.test(metrics), server: servers[at] };
    }),
  );
  return places.sort((one, other) => Number(other.leads) - Number(one.leads));
}

/** Resolves with where the processes stand when that is on different servers, and one leads. */
async function settled(members: readonly Member[], cluster: TestNatsCluster) {
  let places: Awaited<ReturnType<typeof standing>> = [];
  await eventually("the processes stand on different servers, and one leads", async () => {
    places = await standing(members, cluster);
    const servers = new Set(places.map(({ server }) => server));
    return (
      !servers.has(undefined) && servers.size === members.length && places.filter(({ leads }) => leads).length === 1
    );
  });
  return places.map(({ server }) => server!);
}

/** Resolves when the standbys have learned from the leader which of the earlier messages are done. */
async function told(world: BridgeWorld): Promise<void> {
  const beat = () => world.count("SELECT beat FROM hawser.bridge_lead");
  const before = await beat();
  await eventually("the leader has said several times what it has done", async () => (await beat()) > before + 5);
}

/**
 * Resolves when a server can be taken away. Each process receives what is published now: servers tell each other of a subscription
 * when they have time for it, and what is published before at another server has no way to that subscription. What was published
 * before that, and only one process may have, has run.
 */
async function ready(world: BridgeWorld, members: readonly Member[], publisher: Publisher): Promise<void> {
  for (const { serve } of members) {
    const before = await receivedBy(serve);
    await eventually("the process receives what is published", async () => (await receivedBy(serve)) > before + 50);
  }
  const { published } = publisher;
  await eventually(`${published} has run`, async () => (await world.count("SELECT max(n) FROM got")) >= published);
}

// Side by side: the second one mostly waits until a process moves.
it.concurrent("loses nothing by a restart of one server after the other, nor by the death of the one that held most", {
  timeout: 600_000,
}, async () => {
  await using cluster = await startNatsCluster(3);
  const { servers } = cluster;
  await using world = await bridgeWorld({
    natsUrl: servers[0]!.url,
    serverOptions: { host: cluster.host },
    monitor: "127.0.0.1:0",
    sql,
  });
  await using members = await membersOf(world);
  const subject = `${world.prefix}.cluster`;
  await world.subscribe(subject, "capture(bytea)");
  await settled(members.all, cluster);
  const publisher = new Publisher(subject, servers[0]!);
  let killed = 0;
  for (let round = 0; round < atDepth(1); round++) {
    for (const [index, server] of servers.entries()) {
      await publisher.moveTo(servers[(index + 1) % 3]!);
      await ready(world, members.all, publisher);
      await server.restart();
      await cluster.whole();
      await settled(members.all, cluster);
    }
    // Both hold as many connections as the other: the one of the leader is the worse.
    const [worst] = await settled(members.all, cluster);
    await publisher.moveTo(servers.find((server) => server !== worst)!);
    await ready(world, members.all, publisher);
    await worst!.kill();
    killed += 1;
    await eventually("its process stands elsewhere, and that one or another leads", async () => {
      const places = await standing(members.all, cluster);
      return places[0]!.leads && places.every(({ server }) => server !== undefined);
    });
    await worst!.restart();
    await cluster.whole();
    await settled(members.all, cluster);
  }
  const published = await publisher.stop();
  const missing = `SELECT count(*) FROM generate_series(1, ${published}) AS n WHERE n NOT IN (SELECT g.n FROM got AS g)`;
  await eventually("all have come", async () => (await world.count(missing)) === 0).catch(() => undefined);
  const repeated = (await world.count("SELECT count(*) FROM got")) - published;
  console.info(`${published} messages, ${killed} servers killed, ${repeated} repeated`);
  expect(await world.count(missing)).toBe(0);
});

it.concurrent("processes that had to stand on one server part when another one is back, and the leader stays", {
  timeout: 120_000,
}, async () => {
  await using cluster = await startNatsCluster(2);
  const [one, other] = cluster.servers as [TestNatsServer, TestNatsServer];
  await other.stop();
  await using world = await bridgeWorld({
    natsUrl: one.url,
    serverOptions: { host: cluster.host },
    monitor: "127.0.0.1:0",
    sql,
  });
  await using members = await membersOf(world);
  const subject = `${world.prefix}.parting`;
  await world.subscribe(subject, "capture(bytea)");
  await eventually("both stand on the one that is there", async () => {
    const places = await standing(members.all, cluster);
    return places[0]!.leads && places.every(({ server }) => server === one);
  });
  // Messages that arrive during the start may be repeated.
  await told(world);
  const epoch = await world.count("SELECT epoch FROM hawser.bridge_lead");
  const publisher = new Publisher(subject, one);
  await other.restart();
  expect(await settled(members.all, cluster)).toEqual([one, other]);
  await told(world);
  await publisher.moveTo(other);
  const published = await publisher.stop();
  const distinct = "SELECT count(DISTINCT n) FROM got";
  await eventually("all have come", async () => (await world.count(distinct)) === published);
  expect(await world.count("SELECT epoch FROM hawser.bridge_lead")).toBe(epoch);
  // Whoever leads has not moved, and got nothing twice.
  expect(await world.count("SELECT count(*) FROM got")).toBe(published);
});
