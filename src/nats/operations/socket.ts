/**
 * The socket below a connection of nats.js, to learn when bytes have left: the library queues what is published, writes
 * it in a microtask and tells nobody when.
 *
 * These are internals of nats.js, so each use asks whether they are there; where they are not, a PING that the server
 * answered says as much, later.
 */
import type { Socket } from "node:net";
import type { NatsConnection } from "@nats-io/transport-node";

/** What is used of nats.js beyond its public interface. */
interface Internals {
  readonly protocol?: {
    readonly connected?: boolean;
    readonly transport?: { readonly socket?: Socket };
    flushPending?(): void;
  };
}

/** The writing side of a connection. */
export interface WriteSide {
  readonly transport: { readonly socket: Socket };
  /** Writes to the socket what nats.js has queued. */
  flushPending(): void;
}

/**
 * The writing side: "closed" where nothing that is published now can leave any more, undefined where this version of
 * nats.js hides it.
 */
export function writeSideOf(connection: NatsConnection): WriteSide | "closed" | undefined {
  if (connection.isClosed()) return "closed";
  const { protocol } = connection as unknown as Internals;
  if (protocol?.transport === undefined || typeof protocol.flushPending !== "function") return undefined;
  // nats.js notices the end of a socket before it counts as closed, and drops silently what is published in between.
  const { socket } = protocol.transport;
  if (protocol.connected === false || socket === undefined || !socket.writable) return "closed";
  return protocol as WriteSide;
}
