/**
 * Server side of the Postgres protocol, as far as libpq in dblink needs it. {@link PostgresServer} does not interpret
 * queries: its option `answer` takes the text of a query and returns one row or an error.
 *
 * A client connection has three layers:
 *
 * - `client-connection.ts`: the socket, TLS and timers;
 * - `connection-protocol.ts`: the state machine of the protocol, pure: bytes in, effects out;
 * - `login.ts`, its first state: encryption requests, the startup packet, SCRAM-SHA-256 with channel binding
 *   (`scram.ts`). A login has a time limit. If too many connections are logging in, a new one replaces the oldest, so
 *   that strangers who connect and send nothing cannot keep others out.
 *
 * After the login, a client makes one call after another, as simple queries. Further queries wait in the socket until
 * the call is answered: by one row with one text column, or an error (`answer.ts`, encoded by `backend-messages.ts`). A
 * query that is too large fails without ending the session; a message of another type ends the connection. Nothing is
 * buffered beyond what the client reads.
 *
 * Errors are chosen by their effect in libpq and dblink. A call that was certainly not carried out gets an error that
 * says so. A lost answer would leave the caller in doubt. To avoid that, a stopping server answers the next call of an
 * idle connection with an error, or closes the connection if no call arrives for a short time; the socket stays open
 * until the client has read the last messages. A client beyond the maximum number of sessions gets the SQLSTATE at which
 * libpq tries the next gateway.
 */
export {
  type Answer,
  type ErrorAnswer,
  errorAnswerOf,
  type GatewayClient,
  nullRow,
} from "./answer.js";
export type { TlsSource } from "./client-connection.js";
export { PostgresServer, type PostgresServerOptions } from "./postgres-server.js";
export { isBindable } from "./scram.js";
