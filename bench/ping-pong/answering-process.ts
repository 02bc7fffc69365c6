/**
 * The program of the answering process: a peer that replies, a socket that sends back what comes, and one that commits a
 * small row before it does.
 */
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import pg from "pg";
import { Peer } from "../../src/peer/index.js";
import { sendUntilDelivered } from "../send-in-windows.js";
import { serveRequests } from "../serve-requests.js";

const topic = "bench-answering";

/** Where the answers are. */
export interface AnsweringPlaces {
  /** The peer's. */
  readonly topic: string;
  /** Ports of the two sockets. */
  readonly echo: number;
  readonly committingEcho: number;
}

const closers: (() => Promise<unknown>)[] = [];
let peer: Peer | undefined;

const requests = {
  /** Starts answering. */
  async open({ databaseUrl, payloadBytes }: { databaseUrl: string; payloadBytes: number }): Promise<AnsweringPlaces> {
    const answering = new Peer({ name: "bench-answering-1", topic, listen: "127.0.0.1:0", databaseUrl });
    peer = answering;
    closers.push(() => answering.stop());
    await answering.run((message) => {
      if (message.delivery === "at-most-once") void message.reply(message.payload, { delivery: "at-most-once" });
    });
    const client = new pg.Client({ connectionString: databaseUrl });
    await client.connect();
    closers.push(() => client.end());
    await client.query("CREATE TABLE bench_commits (number integer NOT NULL)");
    let number = 0;
    return {
      topic,
      echo: await echo(payloadBytes, undefined),
      committingEcho: await echo(payloadBytes, () =>
        client.query({
          name: "commit",
          text: "INSERT INTO bench_commits (number) VALUES ($1)",
          values: [(number += 1)],
        }),
      ),
    };
  },
  /** Makes the channel of the replies live: one that comes before would be dropped where connecting takes long. */
  reach: (askingTopic: string): Promise<void> => sendUntilDelivered(peer!, askingTopic),
};

/** What the answering process can be asked. */
export type AnsweringRequests = typeof requests;

/** Sends each message back when all of it has come and, if there is something to do before, that is done. */
async function echo(payloadBytes: number, before: (() => Promise<unknown>) | undefined): Promise<number> {
  const sockets = new Set<Socket>();
  const server: Server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => socket.destroy());
    let came = 0;
    socket.on("data", async (chunk) => {
      came += chunk.length;
      if (before !== undefined && came % payloadBytes === 0) await before();
      socket.write(chunk);
    });
  });
  closers.push(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as { port: number }).port;
}

serveRequests(requests, async () => {
  await Promise.all(closers.map((close) => close()));
});
