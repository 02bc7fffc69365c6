/**
 * What the package exports as `hawser/typed`: typed messages over a NATS connection of the user, and by hand.
 */
export {
  type BrokenRule,
  brokenRule,
  type ContentType,
  contentTypeHeader,
  contentTypeOf,
  decode,
  encode,
  type Format,
  parseContentType,
} from "../typed/index.js";
export { type ConsumeOptions, type Consumption, consume } from "./consume.js";
export { type FailureListener, type Handling, type Handlings, handle, type NatsHandler } from "./handling.js";
export { type Published, type PublishOptions, publish } from "./publish.js";
export { type SubscribeOptions, subscribe, type TypedSubscription } from "./subscribe.js";
