/**
 * The connection to NATS, and what is done over it.
 *
 * A process has up to five connections to NATS: of the gateway, the subscriptions, the responders, the outbox and streams.
 * Each is kept up by a {@link NatsConnector}, whose states stand at the head of `connector.ts`. Connecting once is `connect.ts`: it reads
 * the files that the options name (`secret-files.ts`: only below the directories that the operator allowed), makes
 * credentials and TLS of them (`credentials.ts`), and tries the servers of option `host` one after the other in the order
 * of {@link ServerChoice}, by which the processes of a database spread over the servers. All of that shares one time limit,
 * and every failure says which server, which rule and which option it was (`connect-failure.ts`).
 *
 * Hawser dials itself (`dial.ts`) and lends the socket to nats.js (`socket-transport.ts`), with automatic reconnecting
 * turned off: nats.js would keep what is published while it reconnects and let it look as if it had been sent. So a
 * `NatsConnection` lives once. Who uses it asks the connector for the present one each time, and hears of a new one by the
 * event "connected", on which subscriptions are made again.
 *
 * A connection that is replaced (other options, a reload, a move to a less used server, a server that announces its end)
 * is not cut. It drains (`draining.ts`): what is under way on it may end, what was published on it still goes out, and
 * `hasTaken` tells afterwards whether the server has it. Nothing that others publish can end a connection or take this
 * process's time: headers are read by `headers.ts`, listeners are guarded, and what the server refuses or complains of is
 * an event or a line of the log (`connection-events.ts`), shortened and without our secret.
 *
 * What SQL functions do over a connection is in `operations/`; what services have in common that answer over one, in
 * `services/`.
 */
export { confirmed, takenOver } from "./confirmed.js";
export { connectOnce, type Established, isOwnInbox } from "./connect.js";
export { type NatsConnectorEvents, publishViolation, type Refusal } from "./connection-events.js";
export { NatsConnector } from "./connector.js";
export { headersReadHere, readHeaders, receivedHeaders } from "./headers.js";
export {
  ConnectionWatch,
  type FoundStream,
  inboxPrefixOf,
  isStreamFull,
  isStreamMissing,
  jetStreamOf,
  lookInto,
  lookIntoAll,
  NatsOperations,
  natsFailure,
  PublishPipeline,
  type ReadOptions,
  Refusals,
  type StreamContent,
  streamOf,
} from "./operations/index.js";
export { SecretFiles } from "./secret-files.js";
export { type NatsAddress, natsAddresses, ServerChoice } from "./server-choice.js";
export {
  Discovery,
  EndpointCounters,
  errorHeaders,
  isAnswerable,
  type MicroEndpoint,
  type MicroService,
  SubscriptionSet,
} from "./services/index.js";
