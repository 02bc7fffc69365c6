/**
 * What a listener is told when it is made, and what it tells of those it turns away.
 */

import type { ErrorCode } from "../errors/index.js";
import type { Clock } from "../runtime/index.js";
import type { HelloFields, WelcomeFields } from "../wire/index.js";
import type { ListenerConnection, ListenerHandlers } from "./listener-connection.js";
import type { TlsCredentials } from "./tls-credentials.js";

/** A handshake that failed. */
export interface HandshakeRefusal {
  /** `host:port` of the other side. */
  readonly remoteAddress: string;
  /** Why, as it was told (if it could be). */
  readonly code: ErrorCode;
  /** Why, in words. Never a secret; may quote what the other side sent. */
  readonly message: string;
  /** What led to it, where that was on this side. */
  readonly cause?: unknown;
}

/** Whether a sender that has proved itself may come in on its channel. */
export type Authorization =
  | { readonly accept: true; readonly welcome: WelcomeFields }
  | { readonly accept: false; readonly code: ErrorCode; readonly message: string };

/** Where to listen, as whom, and who decides. */
export interface ListenOptions {
  /** `host:port`; port 0 takes a free one. */
  readonly address: string;
  /** This listener's name: a Hello for another is refused. */
  readonly listenerName: string;
  /** The mesh secrets valid now, asked for each Hello: two while one is rotated. */
  readonly secrets: () => readonly Uint8Array[];
  /**
   * Decides on a Hello that has proved itself and is meant for this listener. A rejection refuses it, with the code of a
   * HawserError or `internal`. Nothing is owed to an accepted sender before `onConnection`: it may have gone by then.
   */
  readonly authorize: (hello: HelloFields, remote: { readonly address: string }) => Promise<Authorization>;
  /** A connection is established: its handlers, please. Called as soon as `authorize` has accepted, before any frame. */
  readonly onConnection: (connection: ListenerConnection, hello: HelloFields) => ListenerHandlers;
  /** A connection ended before it was established: exactly once for each. */
  readonly onHandshakeRefused: (refusal: HandshakeRefusal) => void;
  /** The greatest payload accepted, uncompressed, in bytes; said in Welcome. */
  readonly maxMessageBytes: number;
  /** Accept nothing but TLS, with this certificate; read anew when its files change. */
  readonly tls?: TlsCredentials | undefined;
  /** Listen on and accept addresses other than loopback although nothing encrypts the connections. Default false. */
  readonly allowPlaintext?: boolean;
  /** Default: the clock of this process. */
  readonly clock?: Clock;
}
