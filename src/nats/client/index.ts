/**
 * Entry `hawser/nats`: the server that `hawser serve` runs, the SQL functions that reach NATS, and typed messages over
 * a user's NATS connection.
 */
export type { NatsSql } from "../../../generated/ts/nats-functions/client.js";
export type { ServeOptions } from "../serve/index.js";
export { type HawserServer, serve } from "../serve/index.js";
export { type ConsumeOptions, consume } from "./consume.js";
export { type TypedHandler, typed } from "./handling.js";
export { natsSql } from "./nats-sql.js";
export { type PublishOptions, publish } from "./publish.js";
export { type SubscribeOptions, subscribe } from "./subscribe.js";
