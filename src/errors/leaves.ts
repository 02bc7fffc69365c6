/**
 * One error class for each layer. They add nothing but a name: which layer threw is for people who read a log; programs
 * look at `code`.
 */
import { HawserError, type HawserErrorOptions } from "./hawser-error.js";

/** Thrown by `src/wire`: framing, codecs, limits, compression. */
export class WireError extends HawserError {
  static override readonly name = "WireError";
}

/** Thrown by `src/transport`: sockets, TLS, the handshake. */
export class TransportError extends HawserError {
  static override readonly name = "TransportError";
}

/** Thrown by `src/postgres`, which both halves stand on: addresses of databases, sessions. */
export class PostgresError extends HawserError {
  static override readonly name = "PostgresError";
}

/** Thrown by `src/store`: the catalog, leases, messages, the installation. */
export class StoreError extends HawserError {
  static override readonly name = "StoreError";
}

/** Thrown by `src/peer`: the public API. */
export class PeerError extends HawserError {
  static override readonly name = "PeerError";
}

/**
 * Thrown by a handler of the user for a message that it will never take: it is a dead letter at once, and a request is
 * answered with it.
 */
export class Reject extends HawserError {
  static override readonly name = "Reject";

  /** @param reason what is wrong with the message: the dead letter and the sender of a request show it */
  constructor(reason: string, options: HawserErrorOptions = {}) {
    super("rejected", reason, options);
  }
}

/** Thrown by `src/dev`: the embedded servers. */
export class DevError extends HawserError {
  static override readonly name = "DevError";
}

/** Thrown by `src/cli`: the `hawser` command. */
export class CliError extends HawserError {
  static override readonly name = "CliError";
}

/** Thrown by `src/nats`: the connection to NATS and what is done over it. */
export class NatsError extends HawserError {
  static override readonly name = "NatsError";
}

/** Thrown by `src/gateway`: the answering of SQL functions. */
export class GatewayError extends HawserError {
  static override readonly name = "GatewayError";
}

/** Thrown by `src/bridge`: the running of SQL functions for messages and requests of NATS. */
export class BridgeError extends HawserError {
  static override readonly name = "BridgeError";
}

/** Thrown by `src/typed`: topics, rules and values of users' messages. */
export class TypedError extends HawserError {
  static override readonly name = "TypedError";
}

/** Thrown by `src/connect`: transports and services that cannot be made. Calls fail with Connect's own error. */
export class RpcError extends HawserError {
  static override readonly name = "RpcError";
}
