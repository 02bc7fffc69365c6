/**
 * How a server is made.
 */

import type { SecureContext } from "node:tls";
import type { Logger } from "../../runtime/index.js";
import type { Answer, GatewaySession } from "./answer.js";

/** Where the certificate and its key come from. Asked for each new connection; `TlsCredentials` of the transport is one. */
export interface TlsSource {
  readonly current: { readonly context: SecureContext };
}

/** Options of {@link PostgresServer.listen}. */
export interface PostgresServerOptions {
  /** Host name or IP address to listen on. */
  readonly host: string;
  /** 0 takes a free port. */
  readonly port: number;
  /** The one user. */
  readonly user: string;
  /** The one database. */
  readonly database: string;
  /** Printable ASCII. */
  readonly password: string;
  /** Default: no TLS; clients that ask for it are told so. */
  readonly tls?: TlsSource | undefined;
  /** Refuses clients that do not ask for TLS. Default false. Needs `tls`. */
  readonly tlsRequired?: boolean | undefined;
  /** Sessions at once; as many connections again may be in the middle of authenticating. */
  readonly maxSessions: number;
  /** How long a connection may take to authenticate, in ms, TLS included. */
  readonly startupTimeoutMs: number;
  /** The largest message before authentication, in bytes. */
  readonly maxStartupBytes: number;
  /** The longest query, in bytes. */
  readonly maxRequestBytes: number;
  readonly logger: Logger;
  /**
   * Carries a call out. An answer that is no promise is written at once. What is thrown or rejected is answered with: a
   * `HawserError` as what it is, anything else as `XX000` and logged. Asked one call at a time for each session.
   *
   * @param query the text of the simple query without the NUL at its end: a view, valid until the answer is there
   */
  answer(query: Uint8Array, session: GatewaySession): Answer | Promise<Answer>;
  /** The client has gone, or was sent away; a call of the session may still be under way. */
  onSessionEnd?(session: GatewaySession): void;
}
