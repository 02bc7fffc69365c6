/**
 * Connections to NATS, and the operations over them. See README.md.
 */
export { confirmed, interestPropagated } from "./confirmed.js";
export { connectOnce, type Established, isOwnInbox, matchesOwnInbox } from "./connect.js";
export { type NatsConnectorEvents, type PermissionViolation, refusedSubject } from "./connection-events.js";
export { NatsConnector } from "./connector.js";
export { headersReadHere, readHeaders, receivedHeaders } from "./headers.js";
export {
  ConnectionWatch,
  type Delivery,
  type FoundStream,
  inboxPrefixOf,
  isConsumerMissing,
  isStreamFull,
  isStreamMissing,
  jetStreamOf,
  NatsOperations,
  natsFailure,
  parseDelivery,
  type ReadOptions,
  Refusals,
  type StreamContent,
  searchStream,
  searchWholeStream,
  streamOf,
} from "./operations/index.js";
export { SecretFiles } from "./secret-files.js";
export { type NatsAddress, natsAddresses, ServerChoice } from "./server-choice.js";
export { checkNatsServerOptions, type OptionViolation } from "./server-options.js";
export {
  Discovery,
  EndpointCounters,
  errorHeaders,
  isAnswerable,
  type MicroEndpoint,
  type MicroService,
  SubscriptionSet,
} from "./services/index.js";
