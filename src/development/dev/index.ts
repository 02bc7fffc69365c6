/** Embedded servers for development: Postgres from npm, and nats-server from PATH, the cache or the network. */

export { reportReady, startDetached } from "./detached.js";
export { freePort, type PortWish } from "./free-port.js";
export { cacheDirectory } from "./nats/binary.js";
export { identityOf, isAlive, type ProcessIdentity } from "./run-directory.js";
export { tailOf } from "./server-process.js";
export { type DevStack, type DevStackOptions, furtherUrls, libpqVariables, startDevStack } from "./stack.js";
