/**
 * A host name with an address of each family: one is a second away, the other has no route.
 */
import { type ChildProcess, spawn } from "node:child_process";
import dns from "node:dns";
import { once } from "node:events";
import { connect, type LookupFunction } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, expect, it, onTestFinished, vi } from "vitest";
import { DatabaseAddress, openSession } from "../../src/foundation/postgres/index.js";
import { silentLogger } from "../../src/foundation/runtime/index.js";
import { dial } from "../../src/nats/connections/dial.js";
import { openDatabase } from "../../src/operating/operate/index.js";
import { testNatsUrl, testServerUrl } from "../support/database.js";
import { dialTest, TestListener } from "../transport/pair.js";
import { settle } from "../transport/settle.js";

const hostName = "two-families.test";
/** Of the discard-only prefix (RFC 6666), for which no network has a route. */
const nowhere = "100::1";

const listenerProgram = `
  const net = require("node:net");
  const [host, port] = process.argv.slice(1);
  const server = net.createServer((near) => {
    const far = net.connect(Number(port), host);
    for (const socket of [near, far]) socket.on("error", () => [near, far].forEach((each) => each.destroy()));
    near.pipe(far).pipe(near);
  });
  server.listen({ port: 0, host: "127.0.0.1", backlog: 1 }, () => console.log(server.address().port));`;

/**
 * Starts a listener in front of an address, to which a connection takes a second: its queue is full, so that the kernel drops
 * the first packet of a connection, and sends it again after that time.
 *
 * @returns its port; from the look-up of the host name on the listener takes connections
 */
async function distant(host: string, port: string): Promise<string> {
  const child = spawn(process.execPath, ["-e", listenerProgram, host, port], { stdio: ["ignore", "pipe", "inherit"] });
  onTestFinished(() => void child.kill("SIGKILL"));
  const [line] = (await once(child.stdout, "data")) as [Buffer];
  const ownPort = line.toString().trim();
  child.kill("SIGSTOP");
  await fillQueue(Number(ownPort));
  resolveTo(child);
  return ownPort;
}

async function fillQueue(port: number): Promise<void> {
  for (let isFull = false; !isFull; ) {
    const socket = connect(port, "127.0.0.1");
    socket.on("error", () => undefined);
    onTestFinished(() => void socket.destroy());
    isFull = await Promise.race([once(socket, "connect").then(() => false), delay(200, true)]);
    if (isFull) socket.destroy();
  }
}

/** Makes the host name resolve to the listener and to an address without a route. */
function resolveTo(listener: ChildProcess): void {
  const others = dns.lookup as unknown as LookupFunction;
  const lookup: LookupFunction = (name, options, found) => {
    if (name !== hostName) return others(name, options, found);
    found(null, [
      { address: "127.0.0.1", family: 4 },
      { address: nowhere, family: 6 },
    ]);
    // By now the first packet has been dropped.
    void settle().then(() => listener.kill("SIGCONT"));
  };
  vi.spyOn(dns, "lookup").mockImplementation(lookup as unknown as typeof dns.lookup);
}

afterEach(() => vi.restoreAllMocks());

/** The Postgres of this run at the host name. */
async function distantPostgres(): Promise<string> {
  const url = new URL(testServerUrl());
  url.port = await distant(url.hostname, url.port);
  url.hostname = hostName;
  return url.href;
}

it("is reached by a session with Postgres", async () => {
  const { client } = await openSession(DatabaseAddress.of(await distantPostgres()));
  expect((await client.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
  await client.end();
});

it("is reached by a session with a time limit of its own", async () => {
  const address = DatabaseAddress.of(await distantPostgres());
  const { client } = await openSession(address, { connectTimeoutMs: 8_000 });
  await client.end();
});

it("is reached by a pool of sessions with Postgres", async () => {
  const database = openDatabase(await distantPostgres(), { poolSize: 1, logger: silentLogger });
  expect(await database.query("ask", { text: "SELECT 1 AS one" })).toEqual([{ one: 1 }]);
  await database.close();
});

it("is reached by a connection to NATS", async () => {
  const { hostname, port } = new URL(testNatsUrl());
  const ownPort = await distant(hostname, port);
  const target = { host: hostName, port: Number(ownPort), tls: undefined, limitMs: 8_000 };
  const { socket, greeting } = await dial(target, new AbortController().signal);
  expect(greeting.server_id).toEqual(expect.any(String));
  socket.destroy();
});

it("is reached by a peer", async () => {
  await using listener = await TestListener.start();
  const port = await distant("127.0.0.1", String(listener.port));
  const { connection } = await dialTest(`${hostName}:${port}`, { allowPlaintext: true });
  connection.destroy();
});
