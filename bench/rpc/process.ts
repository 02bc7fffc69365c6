/**
 * The program of the answering and of the calling process: one call at a time, and the next one when the answer has come.
 */
import { randomFillSync } from "node:crypto";
import { createClient } from "@connectrpc/connect";
import { connect } from "@nats-io/transport-node";
import type { Routes } from "../../src/connect/index.js";
import { Warehouse } from "../../test/connect/generated/acme/warehouse/v1/warehouse_pb.js";
import { askInTurn, type Latencies } from "../latencies.js";
import { newPeer } from "../peers.js";
import { measuredModule, serveRequests } from "../worker.js";

const rpc = await measuredModule<typeof import("../../src/connect/index.js")>("src/connect/index.ts");

/** What is asked and answered. */
export type CallingWay = "over peers" | "peer.request" | "over NATS" | "NATS request";

/** Where both find each other. */
interface Servers {
  readonly databaseUrl: string;
  readonly natsUrl: string;
  readonly payloadBytes: number;
}

const answeringPeer = "bench-rpc-answering";
const rawSubject = "bench.rpc.raw";

const closers: (() => unknown)[] = [];
const asks = new Map<CallingWay, () => Promise<unknown>>();

const echo: Routes = (router) => router.rpc(Warehouse.method.reserve, ({ note }) => ({ note }));

const requests = {
  /** Starts answering. */
  async answer({ databaseUrl, natsUrl }: Servers): Promise<void> {
    const peer = newPeer(answeringPeer, databaseUrl);
    closers.push(() => peer.stop());
    await rpc.servePeer(peer, echo);
    await peer.run(({ payload }) => payload);
    const connection = await connect({ servers: natsUrl });
    closers.push(() => connection.close());
    connection.subscribe(rawSubject, { callback: (_, message) => void message.respond(message.data) });
    await rpc.serveNats(connection, echo);
  },
  /** Connects to what answers, by all ways. */
  async connect({ databaseUrl, natsUrl, payloadBytes }: Servers): Promise<void> {
    const note = randomFillSync(new Uint8Array(payloadBytes));
    const peer = newPeer("bench-rpc-calling", databaseUrl);
    closers.push(() => peer.stop());
    await peer.run();
    const connection = await connect({ servers: natsUrl });
    closers.push(() => connection.close());
    const overPeers = createClient(Warehouse, rpc.createPeerTransport(peer));
    const overNats = createClient(Warehouse, rpc.createNatsTransport(connection));
    asks.set("over peers", () => overPeers.reserve({ note }));
    asks.set("peer.request", () => peer.request(answeringPeer, note));
    asks.set("over NATS", () => overNats.reserve({ note }));
    asks.set("NATS request", () => connection.request(rawSubject, note));
  },
  /** Asks so many times. */
  ask: ({ way, times }: { way: CallingWay; times: number }): Promise<Latencies> => askInTurn(asks.get(way)!, times),
};

/** What both processes can be asked. */
export type RpcRequests = typeof requests;

serveRequests(requests, async () => {
  await Promise.all(closers.map((close) => close()));
});
