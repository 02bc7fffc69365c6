/**
 * TCP connections between peers, with TLS or without: dialling, listening, the handshake, backpressure, and whether the other side is alive.
 */
export { type Dialled, type DialOptions, dial } from "./dial.js";
export { type Listener, listen } from "./listen.js";
export type { Authorization, HandshakeRefusal, ListenOptions } from "./listen-options.js";
export type { ListenerConnection, ListenerHandlers } from "./listener-connection.js";
export type { SenderConnection, SenderHandlers } from "./sender-connection.js";
export { TlsCredentials } from "./tls-credentials.js";
export type { TlsMaterial } from "./tls-material.js";
export type { PemSource, TlsOptions } from "./tls-options.js";
