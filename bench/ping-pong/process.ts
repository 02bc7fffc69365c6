/**
 * The program of the answering process (a peer that replies, a socket that sends back what comes, and one that commits a
 * small row before it does) and of the asking process: one message at a time, and the next one when the answer has come.
 */
import { randomFillSync } from "node:crypto";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { askInTurn, type Latencies } from "../latencies.js";
import { newPeer, sendUntilDelivered } from "../peers.js";
import { connected } from "../postgres.js";
import { BenchFailure } from "../suite.js";
import { serveRequests } from "../worker.js";

/** What is asked and answered. */
export type AskingWay = "request and reply" | "request" | "until delivered" | "tcp" | "tcp and commit";

/** Where the answers are: ports of the two sockets. The peers are found by their names. */
interface AnsweringPorts {
  readonly echo: number;
  readonly committingEcho: number;
}

const answeringPeer = "bench-answering";
const askingPeer = "bench-asking";

/** A message whose acknowledgement a busy machine keeps waiting is late, but not stored. */
const ackTimeoutMs = 20_000;

const closers: (() => unknown)[] = [];
const asks = new Map<AskingWay, () => unknown>();
let peer: ReturnType<typeof newPeer> | undefined;

const requests = {
  /** Starts answering. */
  async answer({ databaseUrl, payloadBytes }: { databaseUrl: string; payloadBytes: number }): Promise<AnsweringPorts> {
    const answering = (peer = newPeer(answeringPeer, databaseUrl));
    closers.push(() => answering.stop());
    await answering.run((message) => {
      if (message.isRequest) return message.payload;
      if (message.delivery === "at-most-once") void message.reply(message.payload, { delivery: "at-most-once" });
      return undefined;
    });
    const client = await connected(databaseUrl);
    closers.push(() => client.end());
    await client.query("CREATE TABLE bench_commits (number integer NOT NULL)");
    let number = 0;
    const text = "INSERT INTO bench_commits (number) VALUES ($1)";
    const commit = () => client.query({ name: "commit", text, values: [(number += 1)] });
    return { echo: await echo(payloadBytes, undefined), committingEcho: await echo(payloadBytes, commit) };
  },
  /** Makes the channel of the replies live: one that comes before would be dropped where connecting takes long. */
  reachAsking: (): Promise<void> => sendUntilDelivered(peer!, askingPeer),
  /** Connects to what answers, by all ways. */
  async connect(opening: { databaseUrl: string; payloadBytes: number; ports: AnsweringPorts }): Promise<void> {
    const { databaseUrl, payloadBytes, ports } = opening;
    const payload = randomFillSync(new Uint8Array(payloadBytes));
    asks.set("tcp", await askBySocket(ports.echo, payload));
    asks.set("tcp and commit", await askBySocket(ports.committingEcho, payload));
    let answered: () => void = () => undefined;
    const asking = (peer = newPeer(askingPeer, databaseUrl, { ackTimeoutMs }));
    closers.push(() => asking.stop());
    await asking.run(() => answered());
    await sendUntilDelivered(asking, answeringPeer);
    asks.set("until delivered", async () => {
      const { outcome } = await asking.sendTo(answeringPeer, payload);
      if (outcome !== "delivered") throw new BenchFailure(`a message was ${outcome}, not delivered`);
    });
    asks.set("request", () => asking.request(answeringPeer, payload));
    asks.set("request and reply", async () => {
      const answer = new Promise<void>((resolve) => {
        answered = resolve;
      });
      const { outcome } = await asking.sendTo(answeringPeer, payload, { delivery: "at-most-once" });
      if (outcome !== "sent") throw new BenchFailure(`a message was ${outcome}, not sent`);
      await answer;
    });
  },
  /** Asks so many times. */
  ask: ({ way, times }: { way: AskingWay; times: number }): Promise<Latencies> => askInTurn(asks.get(way)!, times),
};

/** What both processes can be asked. */
export type PingPongRequests = typeof requests;

/** Sends each message back when all of it has come and, if there is something to do before, that is done. */
async function echo(payloadBytes: number, before: (() => Promise<unknown>) | undefined): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => socket.destroy());
    let came = 0;
    socket.on("data", async (chunk) => {
      came += chunk.length;
      if (before !== undefined && came % payloadBytes === 0) await before();
      socket.write(chunk);
    });
  });
  closers.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as { port: number }).port;
}

async function askBySocket(port: number, payload: Uint8Array): Promise<() => Promise<void>> {
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  closers.push(() => socket.destroy());
  await once(socket, "connect");
  let left = 0;
  let answered: () => void = () => undefined;
  socket.on("data", (chunk) => {
    left -= chunk.length;
    if (left === 0) answered();
  });
  return () =>
    new Promise((resolve) => {
      answered = resolve;
      left = payload.length;
      socket.write(payload);
    });
}

serveRequests(requests, async () => {
  await Promise.all(closers.map((close) => close()));
});
