/**
 * TCP connections between peers, with or without TLS: dialling, listening, handshake, backpressure and liveness. See README.md.
 */
export type { Authorization, HandshakeRefusal, ListenOptions } from "./accept.js";
export type { ListenerConnection, ListenerHandlers, SenderConnection, SenderHandlers } from "./connection.js";
export { type Dialled, type DialOptions, dial } from "./dial.js";
export { type Listener, listen } from "./listen.js";
export { listenAt } from "./listen-at.js";

export { PendingHandshakes } from "./pending-handshakes.js";

export { checkTlsRuntime } from "./tls-socket.js";
