/**
 * The program of the asking process: one message at a time, and the next one when the answer to it has come.
 */
import { randomFillSync } from "node:crypto";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { Peer } from "../../src/peer/index.js";
import { BenchFailure } from "../bench-failure.js";
import { sendUntilDelivered } from "../send-in-windows.js";
import { serveRequests } from "../serve-requests.js";
import type { AnsweringPlaces } from "./answering-process.js";

/** What is asked and answered. */
export type AskingWay = "request and reply" | "until delivered" | "tcp" | "tcp and commit";

/** How long the exchanges of one load took, in µs. */
export interface Latencies {
  readonly seconds: number;
  readonly p50: number;
  readonly p99: number;
}

const peerTopic = "bench-asking";

/** A message whose acknowledgement a busy machine keeps waiting is late, but not stored. */
const ackTimeoutMs = 20_000;

const sockets: Socket[] = [];
const asks = new Map<AskingWay, () => unknown>();
let peer: Peer | undefined;

const requests = {
  /** Connects by all ways. @returns where replies go */
  async open(opening: { databaseUrl: string; payloadBytes: number; places: AnsweringPlaces }): Promise<string> {
    const { databaseUrl, payloadBytes, places } = opening;
    const { topic } = places;
    const payload = randomFillSync(new Uint8Array(payloadBytes));
    asks.set("tcp", await askBySocket(places.echo, payload));
    asks.set("tcp and commit", await askBySocket(places.committingEcho, payload));
    let answered: () => void = () => undefined;
    const listen = "127.0.0.1:0";
    peer = new Peer({ name: "bench-asking-1", topic: peerTopic, listen, databaseUrl, ackTimeoutMs });
    await peer.run(() => answered());
    const asking = peer;
    await sendUntilDelivered(asking, topic);
    asks.set("until delivered", async () => {
      const { outcome } = await asking.sendTo(topic, payload);
      if (outcome !== "delivered") throw new BenchFailure(`a message was ${outcome}, not delivered`);
    });
    asks.set("request and reply", async () => {
      const answer = new Promise<void>((resolve) => {
        answered = resolve;
      });
      const { outcome } = await asking.sendTo(topic, payload, { delivery: "at-most-once" });
      if (outcome !== "sent") throw new BenchFailure(`a message was ${outcome}, not sent`);
      await answer;
    });
    return peerTopic;
  },
  /** Asks so many times. */
  async ask({ way, times }: { way: AskingWay; times: number }): Promise<Latencies> {
    const ask = asks.get(way)!;
    const took = new Float64Array(times);
    const began = performance.now();
    for (let i = 0, before = began; i < times; i++) {
      await ask();
      const now = performance.now();
      took[i] = now - before;
      before = now;
    }
    const seconds = (performance.now() - began) / 1000;
    took.sort();
    return { seconds, p50: percentile(took, 0.5), p99: percentile(took, 0.99) };
  },
};

/** What the asking process can be asked. */
export type AskingRequests = typeof requests;

async function askBySocket(port: number, payload: Uint8Array): Promise<() => Promise<void>> {
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  sockets.push(socket);
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

/** Of ascending milliseconds, in µs. */
function percentile(ascending: Float64Array, share: number): number {
  return ascending[Math.min(ascending.length - 1, Math.floor(ascending.length * share))]! * 1000;
}

serveRequests(requests, async () => {
  for (const socket of sockets) socket.destroy();
  await peer?.stop();
});
