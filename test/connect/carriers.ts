/**
 * Services and callers over what carries calls: real peers, and a real nats-server.
 */
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { connect, type NatsConnection, nuid } from "@nats-io/transport-node";
import { expect } from "vitest";
import {
  createNatsTransport,
  createPeerTransport,
  type NatsTransportOptions,
  type PeerTransportOptions,
  type ServeNatsOptions,
  type ServePeerOptions,
  serveNats,
  servePeer,
} from "../../src/protobuf/connect/index.js";
import type { Routes } from "../../src/protobuf/connect/routes.js";
import type { PeerWorld, TestPeer } from "../peer/support/world.js";
import { testNatsUrl } from "../support/database.js";
import { ShortageSchema, Warehouse } from "./generated/acme/warehouse/v1/warehouse_pb.js";

/** Serves routes, and calls them by another peer or connection. */
interface Calling {
  transport(options?: NatsTransportOptions & PeerTransportOptions): Transport;
}

/** Carrier of the calls of a test: peers, or NATS. */
export interface TestCarrier {
  readonly name: "peers" | "NATS";
  /** With options that both have. */
  serve(routes: Routes, options?: ServePeerOptions & Omit<ServeNatsOptions, "queue">): Promise<Calling>;
}

/** Peers of a world. */
export function peerCarrier(world: PeerWorld): TestCarrier {
  return {
    name: "peers",
    async serve(routes, options = {}) {
      const [caller, service] = await world.running("caller-1", "service-1");
      await servePeer(service, routes, options);
      return { transport: (own) => createPeerTransport(caller, own) };
    },
  };
}

/**
 * Two peers of a world, which run as long as the world: each test serves at a topic of its own.
 *
 * @param undo is given what ends a service
 */
export function pairedPeerCarrier(world: () => PeerWorld, undo: (end: () => Promise<unknown>) => void): TestCarrier {
  let running: Promise<readonly [TestPeer, TestPeer]> | undefined;
  return {
    name: "peers",
    async serve(routes, options = {}) {
      running ??= world().running("caller-1", "service-1");
      const [caller, service] = await running;
      const topic = `test.${nuid.next()}`;
      const server = await servePeer(service, routes, { ...options, topic });
      undo(() => server.stop());
      return { transport: (own) => createPeerTransport(caller, { ...own, topic }) };
    },
  };
}

/** The nats-server of the run. @param undo is given what ends the connections */
export function natsCarrier(undo: (end: () => Promise<unknown>) => void): TestCarrier {
  return {
    name: "NATS",
    async serve(routes, options = {}) {
      const subjectPrefix = `test.${nuid.next()}`;
      const [caller, service] = [await natsConnection(undo), await natsConnection(undo)];
      await serveNats(service, routes, { subjectPrefix, ...options });
      return { transport: (own) => createNatsTransport(caller, { subjectPrefix, ...own }) };
    },
  };
}

/** A connection to the nats-server of the run. */
export async function natsConnection(
  undo: (end: () => Promise<unknown>) => void,
  servers = testNatsUrl(),
): Promise<NatsConnection> {
  const connection = await connect({ servers, reconnect: false });
  undo(() => connection.close());
  return connection;
}

/** The error that a call is rejected with. */
export async function failureOf(call: Promise<unknown>): Promise<ConnectError> {
  const error = await call.then(
    (value) => expect.fail(`resolved with ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(ConnectError);
  return error as ConnectError;
}

/** A warehouse with 10 of everything. */
export const warehouse: Routes = (router) =>
  router.service(Warehouse, {
    reserve({ sku, quantity, note }) {
      if (quantity <= 10) return { reserved: quantity, note };
      const shortage = { desc: ShortageSchema, value: create(ShortageSchema, { sku, left: 10 }) };
      throw new ConnectError(`only 10 of ${sku}`, Code.FailedPrecondition, { "sku-bin": "AAE" }, [shortage]);
    },
    look: () => ({ left: 10 }),
  });
