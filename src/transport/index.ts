/**
 * TCP connections between peers, with TLS or without: dialling, listening, the handshake, backpressure, and whether the
 * other side is alive.
 *
 * A sender dials ({@link dial}); a listener accepts ({@link listen}, accept.ts). Both put a {@link FrameSocket} on the
 * socket, which knows frames and how a connection ends, and lead it through the handshake (handshake.ts, pure). Then the
 * socket is handed to a receiver of one of the two roles (connection.ts), and the layer above gets a
 * {@link SenderConnection} or a {@link ListenerConnection}.
 */
export type { Authorization, HandshakeRefusal, ListenOptions } from "./accept.js";
export type { ListenerConnection, ListenerHandlers, SenderConnection, SenderHandlers } from "./connection.js";
export { type Dialled, type DialOptions, dial } from "./dial.js";
export { type Listener, listen } from "./listen.js";

export { PendingHandshakes } from "./pending-handshakes.js";

export { TlsCredentials } from "./tls-credentials.js";
export type { PemSource, TlsMaterial, TlsOptions } from "./tls-material.js";
