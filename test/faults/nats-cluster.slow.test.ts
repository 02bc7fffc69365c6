/**
 * A cluster of three NATS servers whose servers are restarted one after the other, and then die, under load: two processes
 * of `hawser serve` stand on different ones all the time that counts, so that what a server takes along one of them has.
 */
import { connect } from "@nats-io/transport-node";
import { expect, it } from "vitest";
import { type HawserServer, serve as startServer } from "../../src/nats/serve/index.js";
import { type KeptLog, keptLog } from "../bridge/role/log.js";
import { receivedBy } from "../bridge/support/overload.js";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { startNatsCluster, type TestNatsCluster } from "../support/nats-cluster.js";
import type { TestNatsServer } from "../support/nats-server.js";
import { CallLedger } from "./support/call-ledger.js";
import { problems } from "./support/ledger.js";
import { Publisher } from "./support/publisher.js";
import { sqlDatabase } from "./support/sql-database.js";

/** A process of `hawser serve`, and its log. */
interface Member extends AsyncDisposable {
  readonly serve: HawserServer;
  readonly log: KeptLog;
}

async function member(databaseUrl: string): Promise<Member> {
  const log = keptLog();
  const address = "127.0.0.1:0";
  const serve = await startServer({ databaseUrl, listen: address, monitor: address, logger: log.logger });
  return { serve, log, [Symbol.asyncDispose]: () => serve[Symbol.asyncDispose]() };
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
async function told(ledger: CallLedger): Promise<void> {
  const beat = async () =>
    (await ledger.query<{ beat: number }>("SELECT beat::float8 AS beat FROM hawser.bridge_lead"))[0]!.beat;
  const before = await beat();
  await eventually("the leader has said several times what it has done", async () => (await beat()) > before + 5);
}

/**
 * Resolves when a server can be taken away. Each process receives what is published now: servers tell each other of a subscription
 * when they have time for it, and what is published before at another server has no way to that subscription. What was published
 * before that, and only one process may have, has run.
 */
async function ready(ledger: CallLedger, members: readonly Member[], publisher: Publisher): Promise<void> {
  for (const { serve } of members) {
    const before = await receivedBy(serve);
    await eventually("the process receives what is published", async () => (await receivedBy(serve)) > before + 50);
  }
  await ledger.reaches(publisher.last);
}

// Side by side: the second one mostly waits until a process moves.
it.concurrent("processes of a cluster lose nothing by a restart of one server after the other, nor by the death of the one that held most", {
  timeout: 600_000,
}, async () => {
  await using cluster = await startNatsCluster(3);
  const { servers } = cluster;
  await using database = await sqlDatabase(servers[0]!.url, { host: cluster.host });
  await using ledger = await CallLedger.make(database.url);
  await using one = await member(database.url);
  await using other = await member(database.url);
  const members = [one, other];
  const options = { natsUrl: servers[0]!.url, subjects: ledger.subjects, perSecond: 1_000 };
  await using publisher = await Publisher.open(options);
  await ledger.isLive(() => publisher.probe());
  await settled(members, cluster);
  publisher.begin();
  for (let round = 0; round < atDepth(1); round++) {
    for (const [index, server] of servers.entries()) {
      await publisher.moveTo(servers[(index + 1) % 3]!.url);
      await ready(ledger, members, publisher);
      await server.restart();
      await cluster.whole();
      await settled(members, cluster);
    }
    // Both hold as many connections as the other: the one of the leader is the worse.
    const [worst] = await settled(members, cluster);
    await publisher.moveTo(servers.find((server) => server !== worst)!.url);
    await ready(ledger, members, publisher);
    await worst!.kill();
    await eventually("its process stands elsewhere, and that one or another leads", async () => {
      const places = await standing(members, cluster);
      return places[0]!.leads && places.every(({ server }) => server !== undefined);
    });
    await worst!.restart();
    await cluster.whole();
    await settled(members, cluster);
  }
  await publisher.end();
  await ledger.reaches(publisher.last);
  const { findings, summary } = await ledger.audit(publisher.last);
  console.info(summary);
  expect(publisher.underWay).toEqual([]);
  // Servers hand messages to each other in no order with those of their own clients.
  expect(problems({ ...findings, late: [] })).toEqual([]);
});

it.concurrent("processes that had to stand on one server of a cluster part when another one is back, and the leader stays", {
  timeout: 120_000,
}, async () => {
  await using cluster = await startNatsCluster(2);
  const [first, second] = cluster.servers as [TestNatsServer, TestNatsServer];
  await second.stop();
  await using database = await sqlDatabase(first.url, { host: cluster.host });
  await using ledger = await CallLedger.make(database.url);
  await using one = await member(database.url);
  await using other = await member(database.url);
  const members = [one, other];
  await using publisher = await Publisher.open({ natsUrl: first.url, subjects: ledger.subjects, perSecond: 1_000 });
  await ledger.isLive(() => publisher.probe());
  await eventually("both stand on the one that is there", async () => {
    const places = await standing(members, cluster);
    return places[0]!.leads && places.every(({ server }) => server === first);
  });
  // Messages that arrive during the start may be repeated.
  await told(ledger);
  const epoch = await ledger.epoch();
  publisher.begin();
  await second.restart();
  expect(await settled(members, cluster)).toEqual([first, second]);
  await told(ledger);
  await publisher.moveTo(second.url);
  await publisher.end();
  await ledger.reaches(publisher.last);
  expect(await ledger.epoch()).toBe(epoch);
  // Whoever leads has not moved, and got nothing twice.
  const { findings, repeated } = await ledger.audit(publisher.last);
  expect(problems({ ...findings, late: [], repeated })).toEqual([]);
});
