/**
 * Embedded servers for development: Postgres from npm and nats-server from PATH, the cache or the network.
 */

export type { PortWish } from "./free-port.js";
export { cacheDirectory } from "./nats/binary.js";
export { type DevStack, type DevStackOptions, startDevStack } from "./stack.js";
