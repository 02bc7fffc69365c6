/**
 * The server's side of the Postgres protocol, as far as libpq within dblink needs it. What a query means is not decided
 * here: {@link PostgresServer} gets a function `answer`, which takes the text of a query and gives one row or an error.
 *
 * A client connection is three things, one on top of the other:
 *
 * - `client-connection.ts`: the socket, TLS and the timers;
 * - `connection-protocol.ts`: the state machine of the protocol, pure: bytes in, effects out;
 * - `login.ts`, the first of its states: encryption requests, the startup packet, SCRAM-SHA-256 with channel binding
 *   (`scram.ts`). A login that takes longer than the startup timeout ends. While too many are under way, a new one takes
 *   the place of the oldest, so that strangers who connect and say nothing keep no one out.
 *
 * Once logged in a client makes one call after another, as simple queries. A further query waits in the socket until the
 * call has its answer: one column of text in one row, or an error (`answer.ts`, as bytes in `backend-messages.ts`).
 * A query that is too large costs only itself; a message of any other kind ends the connection. What is written is never
 * buffered beyond what the client reads.
 *
 * Errors are chosen for what libpq and dblink make of them. A call that was certainly not carried out gets an error that says
 * so; one whose answer is lost leaves its caller in doubt, so the server avoids that: when it stops, an idle connection is
 * told with its next call, or after a moment without one, and the socket lingers until the client has read the last words.
 * A client that is refused because there are too many gets the SQLSTATE at which libpq tries the next gateway.
 */
export {
  type Answer,
  type ErrorAnswer,
  errorAnswerOf,
  type GatewayClient,
  nullRow,
} from "./answer.js";
export type { TlsSource } from "./client-connection.js";
export { isBindable } from "./scram.js";
export { PostgresServer, type PostgresServerOptions } from "./server.js";
