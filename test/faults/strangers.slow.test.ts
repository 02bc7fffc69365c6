/**
 * Strangers at the door of a listening peer: each is turned away within the handshake's limit, and costs next to nothing.
 */
import { randomBytes } from "node:crypto";
import { connect, type Socket } from "node:net";
import { expect, it, onTestFinished } from "vitest";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { type PeerProcess, peerProcess, runningPeer } from "../scenarios/support/peer-process.js";
import { testDatabase } from "../support/database.js";
import { rowsOf } from "../support/on-server.js";
import { helloTo, RawClient } from "../transport/raw-client.js";
import { patienceMs } from "./support/kills.js";

const { preamble, handshakeTimeoutMs } = protocolConstants;
/** The machine has other work, too. */
const slackMs = 5_000;
const limitBytes = 16 * 1024 * 1024;
const each = 10;

/** A stranger's connection, and how it will be refused. */
interface Stranger {
  readonly socket: Socket;
  /** Its own address, as the listener sees it. */
  readonly address: string;
  /** When it had its connection, by `performance.now()`. */
  readonly dialledAt: number;
  readonly closed: Promise<void>;
  readonly code: string;
}

type Behaviour = (port: number, target: { readonly epoch: number; readonly key: number }) => Promise<Stranger>;

async function dial(port: number, code: string): Promise<Stranger> {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => undefined).resume();
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  await new Promise((resolve) => socket.once("connect", resolve));
  return { socket, address: addressOf(socket), dialledAt: performance.now(), closed, code };
}

function addressOf({ localPort }: Socket): string {
  return `127.0.0.1:${localPort}`;
}

const behaviours: Readonly<Record<string, Behaviour>> = {
  async "knows every name and key, and not the secret"(port, { epoch, key }) {
    const client = await RawClient.connect(port);
    const address = addressOf(client.socket);
    const dialledAt = performance.now();
    const challenge = await client.begin();
    const names = { senderName: "a-1", sourceTopic: "a", listenerName: "b-1" };
    client.send(helloTo(challenge, { ...names, connectionKey: key, epoch, secret: new Uint8Array(32).fill(9) }));
    return { socket: client.socket, address, dialledAt, closed: client.closed, code: "unauthenticated" };
  },
  async "sends random bytes"(port) {
    const stranger = await dial(port, "protocol_violation");
    const noise = randomBytes(64 * 1024);
    // Not by chance what a TLS handshake begins with, which is refused under another name.
    if (noise[0] === 0x16) noise[0] = 0;
    stranger.socket.write(noise);
    return stranger;
  },
  async "declares a frame of 4 GiB"(port) {
    const stranger = await dial(port, "protocol_violation");
    stranger.socket.write(
      Buffer.concat([Buffer.from(preamble), Buffer.from([255, 255, 255, 255]), Buffer.alloc(4_096)]),
    );
    return stranger;
  },
  async "is silent"(port) {
    return await dial(port, "handshake_timeout");
  },
  async "sends one byte a second"(port) {
    const stranger = await dial(port, "handshake_timeout");
    const bytes = Buffer.concat([Buffer.from(preamble), Buffer.from([0, 0, 4, 0])]);
    let next = 0;
    const drip = setInterval(() => stranger.socket.write(bytes.subarray(next, ++next)), 1_000);
    void stranger.closed.then(() => clearInterval(drip));
    return stranger;
  },
};

it("turns 50 strangers at once away by name, in time and in little memory, while honest peers go on", {
  timeout: patienceMs,
}, async () => {
  const database = await testDatabase();
  onTestFinished(() => database.drop());
  const { url } = database;
  const listener = peerProcess(url, "b-1", {}, ["--expose-gc"]);
  const port = Number((await listener.call("run")).split(":")[1]);
  const honest = await runningPeer(url, "a-1");
  await honest.call("beginStream", { topic: "b", prefix: "honest", window: 100, perSecond: 300 });
  await honest.call("hurryStream", 600);
  await listener.messages.length(600);
  const before = await listener.call("memory");
  const confirmedBefore = honest.confirmed.all.length;
  const [target] = (await rowsOf(
    url,
    `SELECT p.epoch::float8 AS epoch, m.connection_key AS key FROM hawser.peers AS p
     JOIN hawser.conn_key_map AS m ON m.sender_name = p.name WHERE m.composite = 'a-1:a:b-1'`,
  )) as unknown as [{ epoch: number; key: number }];

  const strangers = await Promise.all(
    Object.entries(behaviours).flatMap(([what, behave]) =>
      Array.from({ length: each }, async () => ({ what, ...(await behave(port, target)) })),
    ),
  );
  onTestFinished(() => {
    for (const { socket } of strangers) socket.destroy();
  });
  const during = await listener.call("memory");
  const refusals = await Promise.all(
    strangers.map(async ({ what, code, address, dialledAt, closed }) => {
      const status = await refusalOf(listener, address);
      const tookMs = performance.now() - dialledAt;
      await closed;
      return { what, code, status, tookMs };
    }),
  );
  for (const { what, code, status, tookMs } of refusals) {
    expect({ what, code: status.code }).toEqual({ what, code });
    expect(tookMs, what).toBeLessThan(handshakeTimeoutMs + slackMs);
  }
  const after = await listener.call("memory");
  // Exactly one each.
  const told = listener.statuses.all.filter(({ kind }) => kind === "handshake_refused");
  expect(told).toHaveLength(strangers.length);

  const mebibytes = (bytes: number): string => `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
  console.log(
    `heap and external: ${mebibytes(before.heapAndExternal)} before, ${mebibytes(during.heapAndExternal)} with 50 strangers, ` +
      `${mebibytes(after.heapAndExternal)} after; RSS: ${mebibytes(before.rss)}, ${mebibytes(during.rss)}, ${mebibytes(after.rss)}`,
  );
  expect(during.heapAndExternal - before.heapAndExternal).toBeLessThan(limitBytes);
  expect(after.heapAndExternal - before.heapAndExternal).toBeLessThan(limitBytes);

  // Honest ones have gone on meanwhile, live, and a new one is let in.
  const meanwhile = honest.confirmed.all.slice(confirmedBefore);
  expect(meanwhile.length).toBeGreaterThan(50);
  expect(meanwhile.filter(({ outcome }) => outcome !== "delivered")).toEqual([]);
  const newcomer = await runningPeer(url, "c-1");
  expect((await newcomer.call("sendTo", "b", "hello")).outcome).toBe("delivered");
  const last = await honest.call("endStream");
  expect(honest.unconfirmed.all).toEqual([]);
  await listener.messages.find(({ text }) => text === `honest ${last}`);
});

async function refusalOf(listener: PeerProcess, address: string): Promise<{ readonly code: string }> {
  const status = await listener.statuses.find((each) => each.kind === "handshake_refused" && each.address === address);
  if (status.kind !== "handshake_refused") throw new Error(`${status.kind} is no refusal`);
  return status;
}
