/**
 * Connections to NATS, and the operations over them.
 *
 * A process has up to five connections to NATS: for the gateway, subscriptions, responders, the outbox and streams. A
 * {@link NatsConnector} keeps up each of them; `connector.ts` starts with its states. A single attempt is `connect.ts`:
 * it reads the files that the options name (`secret-files.ts`: only below directories that the operator permits), makes
 * credentials and TLS settings from them (`credentials.ts`), and tries the servers of option `host` in the order of
 * {@link ServerChoice}, which spreads the processes of a database over the servers. All of that shares one time limit.
 * Every error names the server, the rule and the option (`connect-failure.ts`).
 *
 * Hawser dials itself (`dial.ts`) and passes the socket to nats.js (`socket-transport.ts`), with automatic reconnecting
 * turned off: while it reconnects, nats.js would buffer publishes and make them look as if they were sent. So a
 * `NatsConnection` is never reconnected. Code that uses NATS reads the current one from the connector each time, and
 * makes its subscriptions again on the event "connected".
 *
 * A connection that is replaced (after new options, a reload, a move to a server with fewer processes, or lame duck
 * mode) drains first (`draining.ts`): its running uses may end, and what was published on it is still sent. `hasTaken`
 * returns true if the server has read that. Nothing that other clients publish can end a connection or block the
 * process: headers are parsed by `headers.ts`, errors of listeners are caught, and refusals and errors of the server
 * become events or log lines (`connection-events.ts`), shortened and without secrets.
 *
 * `operations/` has the operations of SQL functions; `services/` the protocol of micro services that answer requests.
 */
export { confirmed, interestPropagated } from "./confirmed.js";
export { connectOnce, type Established, isOwnInbox, matchesOwnInbox } from "./connect.js";
export { type NatsConnectorEvents, publishViolation, type Refusal } from "./connection-events.js";
export { NatsConnector } from "./connector.js";
export { headersReadHere, readHeaders, receivedHeaders } from "./headers.js";
export {
  ConnectionWatch,
  type Delivery,
  type FoundStream,
  inboxPrefixOf,
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
