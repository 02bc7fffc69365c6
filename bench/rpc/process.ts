/**
 * The program of the answering and of the calling process.
 */
import { randomFillSync } from "node:crypto";
import { createClient } from "@connectrpc/connect";
import { connect } from "@nats-io/transport-node";
import type { Routes } from "../../src/protobuf/connect/routes.js";
import { Warehouse } from "../../test/connect/generated/acme/warehouse/v1/warehouse_pb.js";
import { askInFlight, type Latencies } from "../latencies.js";
import { newPeer } from "../peers.js";
import { measuredModule, serveRequests } from "../worker.js";
import { type Alternative, alternatives } from "./alternatives.js";

const rpc = await measuredModule<typeof import("../../src/protobuf/connect/index.js")>("src/protobuf/connect/index.ts");

/** Transports of a call. */
export type CallingWay = "over peers" | "peer.request" | "over NATS" | "NATS request" | Alternative;

/** Servers and payload size; both processes get the same. */
interface Servers {
  readonly databaseUrl: string;
  readonly natsUrl: string;
  readonly payloadBytes: number;
}

type Addresses = Partial<Record<Alternative, string>>;
interface Addressed {
  readonly addresses: Addresses;
}

const answeringPeer = "bench-rpc-answering";
const rawSubject = "bench.rpc.raw";

const closers: (() => unknown)[] = [];
const asks = new Map<CallingWay, () => Promise<unknown>>();

const echo: Routes = (router) => router.rpc(Warehouse.method.reserve, ({ note }) => ({ note }));

const requests = {
  /** Starts answering. @returns the addresses of the alternatives */
  async answer({ databaseUrl, natsUrl }: Servers): Promise<Addresses> {
    const peer = newPeer(answeringPeer, databaseUrl);
    closers.push(() => peer.stop());
    await rpc.servePeer(peer, echo);
    await peer.respond(peer.topic, ({ payload }) => payload);
    await peer.start();
    const connection = await connect({ servers: natsUrl });
    closers.push(() => connection.close());
    connection.subscribe(rawSubject, { callback: (_, message) => void message.respond(message.data) });
    await rpc.serveNats(connection, echo);
    const addresses: Addresses = {};
    for (const [name, { answer }] of Object.entries(alternatives)) {
      const { address, close } = await answer();
      closers.push(close);
      addresses[name as Alternative] = address;
    }
    return addresses;
  },
  /** Connects to what answers, by all ways. */
  async connect({ databaseUrl, natsUrl, payloadBytes, addresses }: Servers & Addressed): Promise<void> {
    const note = randomFillSync(new Uint8Array(payloadBytes));
    const peer = newPeer("bench-rpc-calling", databaseUrl);
    closers.push(() => peer.stop());
    await peer.start();
    const connection = await connect({ servers: natsUrl });
    closers.push(() => connection.close());
    const overPeers = createClient(Warehouse, rpc.createPeerTransport(peer));
    const overNats = createClient(Warehouse, rpc.createNatsTransport(connection));
    asks.set("over peers", () => overPeers.reserve({ note }));
    asks.set("peer.request", () => peer.request(answeringPeer, note));
    asks.set("over NATS", () => overNats.reserve({ note }));
    asks.set("NATS request", () => connection.request(rawSubject, note));
    for (const [name, { connect }] of Object.entries(alternatives)) {
      const { call, close } = await connect(addresses[name as Alternative]!, note);
      closers.push(close);
      asks.set(name as Alternative, call);
    }
  },
  /** Asks so many times. */
  ask: ({ way, times, inFlight }: { way: CallingWay; times: number; inFlight: number }): Promise<Latencies> =>
    askInFlight(asks.get(way)!, times, inFlight),
};

/** Requests that both processes answer. */
export type RpcRequests = typeof requests;

serveRequests(requests, async () => {
  await Promise.all(closers.map((close) => close()));
});
