/**
 * TCP connections between peers, with or without TLS: dialling, listening, handshake, backpressure and liveness.
 *
 * A sender dials ({@link dial}); a listener accepts ({@link listen}, accept.ts). Both wrap the socket in a
 * {@link FrameSocket}, which handles frames and the end of the connection, and run the handshake (handshake.ts, pure).
 * A receiver for the role of the side then handles the frames (connection.ts), and the layer above gets a
 * {@link SenderConnection} or a {@link ListenerConnection}.
 */
export type { Authorization, HandshakeRefusal, ListenOptions } from "./accept.js";
export type { ListenerConnection, ListenerHandlers, SenderConnection, SenderHandlers } from "./connection.js";
export { type Dialled, type DialOptions, dial } from "./dial.js";
export { type Listener, listen } from "./listen.js";

export { PendingHandshakes } from "./pending-handshakes.js";

export { checkTlsRuntime } from "./tls-socket.js";
