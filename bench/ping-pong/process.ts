/**
 * The program of the answering process (a peer that replies, a socket that sends back what comes, and one that commits a
 * small row before it does, and other ways) and of the asking process.
 */
import { randomFillSync } from "node:crypto";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { askInFlight, type Latencies } from "../latencies.js";
import { newPeer, sendUntilDelivered } from "../peers.js";
import { connected } from "../postgres.js";
import { BenchFailure } from "../suite.js";
import { serveRequests } from "../worker.js";
import { answerByNats, answerByZeromq, askByNats, askByZeromq } from "./alternatives.js";

/** Transports and delivery modes of a ping-pong. */
export type AskingWay =
  | "request and reply"
  | "request"
  | "until delivered"
  | "tcp"
  | "tcp and commit"
  | "nats.js"
  | "zeromq.js";

/** Servers and payload size; both processes get the same. */
interface Opening {
  readonly databaseUrl: string;
  readonly natsUrl: string;
  readonly payloadBytes: number;
}

/** Addresses of the answering side: ports of the two sockets, and zeromq's address if installed. Peers are found by name. */
interface Answering {
  readonly echo: number;
  readonly committingEcho: number;
  readonly zeromq: string | undefined;
}

const answeringPeer = "bench-answering";
const askingPeer = "bench-asking";
const subject = "bench.ping-pong";

/** A message whose acknowledgement a busy machine keeps waiting is late, but not stored. */
const ackTimeoutMs = 20_000;

const closers: (() => unknown)[] = [];
const asks = new Map<AskingWay, () => unknown>();
let peer: ReturnType<typeof newPeer> | undefined;

const requests = {
  /** Starts answering. */
  async answer({ databaseUrl, natsUrl, payloadBytes }: Opening): Promise<Answering> {
    const answering = (peer = newPeer(answeringPeer, databaseUrl));
    closers.push(() => answering.stop());
    await answering.handle(answering.topic, (message) => {
      if (message.delivery === "at-most-once") void message.reply(message.payload, { delivery: "at-most-once" });
    });
    await answering.respond(answering.topic, ({ payload }) => payload);
    await answering.start();
    const client = await connected(databaseUrl);
    closers.push(() => client.end());
    await client.query("CREATE TABLE bench_commits (number integer NOT NULL)");
    let number = 0;
    const text = "INSERT INTO bench_commits (number) VALUES ($1)";
    const commit = () => client.query({ name: "commit", text, values: [(number += 1)] });
    const nats = await answerByNats(natsUrl, subject);
    closers.push(() => nats.close());
    const zeromq = await answerByZeromq();
    closers.push(() => zeromq?.close());
    return {
      echo: await echo(payloadBytes, undefined),
      committingEcho: await echo(payloadBytes, commit),
      zeromq: zeromq?.address,
    };
  },
  /** Makes the channel of the replies live: one that comes before would be dropped where connecting takes long. */
  reachAsking: (): Promise<void> => sendUntilDelivered(peer!, askingPeer),
  /** Connects to what answers, by all ways. */
  async connect({ databaseUrl, natsUrl, payloadBytes, where }: Opening & { where: Answering }): Promise<void> {
    const payload = randomFillSync(new Uint8Array(payloadBytes));
    asks.set("tcp", await askBySocket(where.echo, payload));
    asks.set("tcp and commit", await askBySocket(where.committingEcho, payload));
    const nats = await askByNats(natsUrl, subject, payload);
    closers.push(() => nats.close());
    asks.set("nats.js", nats.ask);
    if (where.zeromq !== undefined) {
      const zeromq = askByZeromq(where.zeromq, payload);
      closers.push(() => zeromq.close());
      asks.set("zeromq.js", zeromq.ask);
    }
    let answered: () => void = () => undefined;
    const asking = (peer = newPeer(askingPeer, databaseUrl, { tuning: { ackTimeoutMs } }));
    closers.push(() => asking.stop());
    await asking.handle(asking.topic, () => answered());
    await asking.start();
    await sendUntilDelivered(asking, answeringPeer);
    asks.set("until delivered", async () => {
      const { outcome } = await asking.send(answeringPeer, payload);
      if (outcome !== "delivered") throw new BenchFailure(`a message was ${outcome}, not delivered`);
    });
    asks.set("request", () => asking.request(answeringPeer, payload));
    asks.set("request and reply", async () => {
      const answer = new Promise<void>((resolve) => {
        answered = resolve;
      });
      const { outcome } = await asking.send(answeringPeer, payload, { delivery: "at-most-once" });
      if (outcome !== "sent") throw new BenchFailure(`a message was ${outcome}, not sent`);
      await answer;
    });
  },
  /** Asks so many times. */
  ask: ({ way, times, inFlight }: { way: AskingWay; times: number; inFlight: number }): Promise<Latencies> =>
    askInFlight(asks.get(way)!, times, inFlight),
};

/** Requests that both processes answer. */
export type PingPongRequests = typeof requests;

/** Echoes each complete message, after `before` has resolved if it is given. */
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

/** The answers come in the order of the requests. What is asked at one time goes in one write. */
async function askBySocket(port: number, payload: Uint8Array): Promise<() => Promise<void>> {
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  closers.push(() => socket.destroy());
  await once(socket, "connect");
  const asked: (() => void)[] = [];
  let came = 0;
  socket.on("data", (chunk) => {
    for (came += chunk.length; came >= payload.length; came -= payload.length) asked.shift()!();
  });
  return () =>
    new Promise((resolve) => {
      asked.push(resolve);
      if (socket.writableCorked === 0) {
        socket.cork();
        process.nextTick(() => socket.uncork());
      }
      socket.write(payload);
    });
}

serveRequests(requests, async () => {
  await Promise.all(closers.map((close) => close()));
});
