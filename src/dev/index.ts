/**
 * Embedded servers for development: Postgres from npm and nats-server from PATH, the cache or the network.
 */
export { cacheDirectory } from "./cache-directory.js";
export type { PortWish } from "./free-port.js";
export { type DevServer, type DevStack, type DevStackOptions, startDevStack } from "./stack.js";
