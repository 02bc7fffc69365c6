/**
 * A failover to a database server that has lost everything but the names: what peers remember of the old one must not
 * be used there, and everything goes on.
 */
import { expect, it, onTestFinished } from "vitest";
import { startDevStack } from "../../src/development/dev/index.js";
import { migrate } from "../../src/jobs-and-peers/migrations/index.js";
import { Peer } from "../../src/jobs-and-peers/peer/index.js";
import { startProxy } from "../store/support/proxy.js";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { patienceMs } from "./support/kills.js";

it("a failover to a server that has only the names is survived by peers: names are taken anew, and messages go on in order", {
  timeout: patienceMs,
}, async () => {
  const first = await testDatabase({ migrated: true });
  onTestFinished(() => first.drop());
  await using proxy = await startProxy(first.url);
  const texts: string[] = [];
  const lost: string[] = [];
  const settings = { listen: "127.0.0.1:0", databaseUrl: proxy.url };
  await using a = new Peer({ ...settings, name: "a-1", topic: "a" });
  await using b = new Peer({ ...settings, name: "b-1", topic: "b" });
  for (const peer of [a, b]) peer.on("status", ({ kind }) => kind === "name_lost" && lost.push(kind));
  await a.handle(a.topic, () => undefined);
  await a.start();
  await b.handle(b.topic, ({ payload }) => texts.push(Buffer.from(payload).toString()));
  await b.start();
  for (let number = 1; number <= 20; number++) await a.send("b", `${number}`);

  await using standby = await startDevStack({ nats: false });
  const { pathname } = new URL(first.url);
  await onServer(standby.databaseUrl, `CREATE DATABASE ${pathname.slice(1)}`);
  const there = new URL(standby.databaseUrl);
  there.pathname = pathname;
  // A server that takes over for another one has its logins.
  const { password } = new URL(first.url);
  await onServer(standby.databaseUrl, `ALTER ROLE ${there.username} PASSWORD '${decodeURIComponent(password)}'`);
  there.password = password;
  await migrate({ databaseUrl: there.href });
  const names = await epochs(first.url);
  for (const [name, epoch] of names) {
    await onServer(
      there.href,
      `INSERT INTO hawser_peer_data.peers (name, epoch) VALUES ('${name}', ${epoch})`,
      `INSERT INTO hawser_data.owners (what, epoch) VALUES ('peer:${name}', ${epoch})`,
    );
  }
  const [secret] = await rowsOf(first.url, "SELECT encode(secret, 'hex') AS hex FROM hawser_peer_data.mesh_secret");
  await onServer(there.href, `UPDATE hawser_peer_data.mesh_secret SET secret = decode('${secret?.["hex"]}', 'hex')`);

  const during = Array.from({ length: 20 }, (_, n) => a.send("b", `${n + 21}`));
  proxy.leadTo(there.href);
  proxy.cut();
  for (const { outcome } of await Promise.all(during)) expect(outcome).toMatch(/delivered|stored/);
  await eventually("the peers are in the directory of the other server", async () => {
    const [row] = await rowsOf(there.href, "SELECT count(*)::text FROM hawser_peer_data.listeners");
    return row?.["count"] === "2";
  });
  for (let number = 41; number <= 60; number++) await a.send("b", `${number}`);
  await eventually("all have arrived", () => new Set(texts).size === 60);
  // Unconfirmed messages may be repeated; first occurrences are in order.
  expect([...new Set(texts)]).toEqual(Array.from({ length: 60 }, (_, n) => `${n + 1}`));
  expect(lost).toEqual([]);
  for (const [name, epoch] of await epochs(there.href)) expect(epoch).toBeGreaterThan(names.get(name) ?? 0n);
});

/** The epoch of each name. */
async function epochs(databaseUrl: string): Promise<Map<string, bigint>> {
  const rows = await rowsOf(databaseUrl, "SELECT name, epoch::text FROM hawser_peer_data.peers");
  return new Map(rows.map((row) => [String(row["name"]), BigInt(String(row["epoch"]))]));
}
