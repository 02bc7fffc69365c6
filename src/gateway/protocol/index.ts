/**
 * The server's side of the Postgres protocol, as far as libpq within dblink needs it: startup, TLS, SCRAM-SHA-256, simple
 * queries answered with one column of text or an error. What a query means is for whoever makes the server.
 */

export {
  type Answer,
  type ErrorAnswer,
  emptyRow,
  type GatewaySession,
  type NoRowAnswer,
  noRow,
  nullRow,
  type RowAnswer,
} from "./answer.js";
export { isBindable } from "./channel-binding.js";
export { errorAnswerOf } from "./error-answer.js";
export type { PostgresServerOptions, TlsSource } from "./options.js";
export { PostgresServer } from "./server.js";
