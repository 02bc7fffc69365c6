/**
 * Entry `hawser/nats`: the server that `hawser serve` runs, the SQL functions that reach NATS, and typed messages over
 * a user's NATS connection.
 */
export type { NatsSql } from "../../generated/ts/nats-functions/client.js";
export {
  type ConsumeOptions,
  consume,
  type PublishOptions,
  publish,
  type SubscribeOptions,
  subscribe,
  type TypedHandler,
  typed,
} from "../typed-nats/index.js";
export { natsSql } from "./nats-sql.js";
export { type HawserServer, serve } from "./serve.js";
export type { ServeOptions } from "./serve-options.js";
