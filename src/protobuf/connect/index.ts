/**
 * RPC with Connect over peers and over NATS: the package entry `hawser/connect`.
 */
export { natsMessage, type ServeNatsOptions, serveNats } from "./nats-service.js";
export { createNatsTransport, type NatsTransportOptions } from "./nats-transport.js";
export { peerMessage, type ServePeerOptions, servePeer } from "./peer-service.js";
export { createPeerTransport, type PeerTransportOptions } from "./peer-transport.js";
export { createRulesInterceptor } from "./rules-interceptor.js";
