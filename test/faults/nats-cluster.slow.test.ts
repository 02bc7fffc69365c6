/**
 * A cluster of three NATS servers whose servers are restarted one after the other, and then die, under load: two processes
 * of `hawser serve` stand on different ones all the time that counts, so that what a server takes along one of them has.
 */
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { expect, it } from "vitest";
import { Serve } from "../../src/serve/index.js";
import { type BridgeWorld, bridgeWorld } from "../bridge/support/bridge-world.js";
import { receivedBy } from "../bridge/support/overload.js";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { startNatsCluster, type TestNatsCluster } from "../support/nats-cluster.js";
import type { TestNatsServer } from "../support/nats-server.js";

const sql = `
  CREATE TABLE got (n int);
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

/** The servers that the processes stand on, that of the leader first. */
async function standing(world: BridgeWorld, serves: readonly Serve[], { servers }: TestNatsCluster) {
  const rows = await world.rows<{ port: number; nats_server: string | null }>(
    "SELECT port, nats_server FROM hawser.gateways",
  );
  const places: { readonly leads: boolean; readonly server: TestNatsServer | undefined }[] = [];
  for (const serve of serves) {
    const metrics = await (await fetch(`http://${serve.monitorAddress}/metrics`)).text();
    const row = rows.find(({ port }) => serve.address.endsWith(`:${port}`));
    places.push({
      leads: /^hawser_bridge_leading(\{.*\})? 1$/m.test(metrics),
      server: servers.find(({ port }) => row?.nats_server?.endsWith(`:${port}`)),
    });
  }
  return places.sort((one, other) => Number(other.leads) - Number(one.leads));
}

/** Resolves with where the processes stand when that is on different servers, one leads, and the other follows it. */
async function settled(world: BridgeWorld, serves: readonly Serve[], cluster: TestNatsCluster) {
  let places: Awaited<ReturnType<typeof standing>> = [];
  await eventually("the processes stand on different servers, and one leads", async () => {
    places = await standing(world, serves, cluster);
    const servers = new Set(places.map(({ server }) => server));
    return (
      !servers.has(undefined) && servers.size === serves.length && places.filter(({ leads }) => leads).length === 1
    );
  });
  await told(world);
  return places.map(({ server }) => server!);
}

/** Of what came before, the processes that wait know what is done. */
async function told(world: BridgeWorld): Promise<void> {
  const beat = () => world.count("SELECT beat FROM hawser.bridge_lead");
  const before = await beat();
  await eventually("the leader has said several times what it has done", async () => (await beat()) > before + 5);
}

/**
 * Each process receives what is published now. Servers tell each other of a subscription when they have time for it: what is
 * published before at another server has no way to that subscription, and no server is taken away before.
 */
async function hear(serves: readonly Serve[]): Promise<void> {
  for (const serve of serves) {
    const before = await receivedBy(serve);
    await eventually("the process receives what is published", async () => (await receivedBy(serve)) > before + 50);
  }
}

it("loses nothing by a restart of one server after the other, nor by the death of the one that held most", {
  timeout: 600_000,
}, async () => {
  await using cluster = await startNatsCluster(3);
  const { servers } = cluster;
  await using world = await bridgeWorld({
    natsUrl: servers[0]!.url,
    serverOptions: { host: cluster.host },
    monitorListen: "127.0.0.1:0",
    sql,
  });
  await using second = await Serve.start({
    databaseUrl: world.database.url,
    gatewayListen: "127.0.0.1:0",
    monitorListen: "127.0.0.1:0",
  });
  const serves = [world.serve, second];
  const subject = `${world.prefix}.cluster`;
  await world.subscribe(subject, "capture(bytea)");
  await settled(world, serves, cluster);
  const publisher = new Publisher(subject, servers[0]!);
  let killed = 0;
  for (let round = 0; round < Math.max(1, atDepth(5)); round++) {
    for (const [index, server] of servers.entries()) {
      await publisher.moveTo(servers[(index + 1) % 3]!);
      await hear(serves);
      await server.restart();
      await cluster.whole();
      await settled(world, serves, cluster);
    }
    // Both hold as many connections as the other: the one of the leader is the worse.
    const [worst] = await settled(world, serves, cluster);
    await publisher.moveTo(servers.find((server) => server !== worst)!);
    await hear(serves);
    await worst!.kill();
    killed += 1;
    await eventually("another process leads, or the same again", async () => {
      return (await standing(world, serves, cluster)).some(({ leads }) => leads);
    });
    await worst!.restart();
    await cluster.whole();
    await settled(world, serves, cluster);
  }
  const published = await publisher.stop();
  const missing = `SELECT count(*) FROM generate_series(1, ${published}) AS n WHERE n NOT IN (SELECT g.n FROM got AS g)`;
  await eventually("all have come", async () => (await world.count(missing)) === 0).catch(() => undefined);
  const repeated = (await world.count("SELECT count(*) FROM got")) - published;
  console.info(`${published} messages, ${killed} servers killed, ${repeated} repeated`);
  expect(await world.count(missing)).toBe(0);
});

it("processes that had to stand on one server part when another one is back, and the leader stays", {
  timeout: 120_000,
}, async () => {
  await using cluster = await startNatsCluster(2);
  const [one, other] = cluster.servers as [TestNatsServer, TestNatsServer];
  await other.stop();
  await using world = await bridgeWorld({
    natsUrl: one.url,
    serverOptions: { host: cluster.host },
    monitorListen: "127.0.0.1:0",
    sql,
  });
  await using second = await Serve.start({
    databaseUrl: world.database.url,
    gatewayListen: "127.0.0.1:0",
    monitorListen: "127.0.0.1:0",
  });
  const serves = [world.serve, second];
  const subject = `${world.prefix}.parting`;
  await world.subscribe(subject, "capture(bytea)");
  await eventually("both stand on the one that is there", async () => {
    const places = await standing(world, serves, cluster);
    return places[0]!.leads && places.every(({ server }) => server === one);
  });
  // What comes while they start may be repeated.
  await told(world);
  const epoch = await world.count("SELECT epoch FROM hawser.bridge_lead");
  const publisher = new Publisher(subject, one);
  await other.restart();
  expect(await settled(world, serves, cluster)).toEqual([one, other]);
  await publisher.moveTo(other);
  const published = await publisher.stop();
  const distinct = "SELECT count(DISTINCT n) FROM got";
  await eventually("all have come", async () => (await world.count(distinct)) === published);
  expect(await world.count("SELECT epoch FROM hawser.bridge_lead")).toBe(epoch);
  // Whoever leads has not moved, and got nothing twice.
  expect(await world.count("SELECT count(*) FROM got")).toBe(published);
});
