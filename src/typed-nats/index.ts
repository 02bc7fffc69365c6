/** Typed messages over a NATS connection of the user; part of the package entry `hawser/nats`. */
export { type ConsumeOptions, consume } from "./consume.js";
export { type TypedHandler, typed } from "./handling.js";
export { messageIdHeader, type PublishOptions, publish } from "./publish.js";
export { type SubscribeOptions, subscribe } from "./subscribe.js";
