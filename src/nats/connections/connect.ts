/**
 * A single attempt to connect to the NATS server, from reading the files of the options to the server's answer to
 * CONNECT.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import { gatewayConstants } from "../../../generated/ts/settings/nats.js";
import type { HawserError } from "../../foundation/errors/index.js";
import { inTime, unlessAborted } from "../../foundation/runtime/index.js";
import { noServer, type ServerName, serverRefusal, socketFailure, tlsFailure, unavailable } from "./connect-failure.js";
import { type Credentials, readCredentials, readTls, type TlsMaterial } from "./credentials.js";
import { type Dialled, dial } from "./dial.js";
import { type SecretFiles, secretFileError } from "./secret-files.js";
import { type NatsAddress, natsAddresses } from "./server-choice.js";
import type { ConnectionOptions } from "./server-options.js";
import { connectOver, SocketTransport } from "./socket-transport.js";

const { natsInboxPrefix } = gatewayConstants;
/** Time limit of one attempt to connect to NATS. */
export const natsConnectTimeoutMs = 4_000;
/** Silence on a connection to NATS before it is asked for a sign of life; the second that stays unanswered ends it. */
const natsPingIntervalMs = 10_000;

/** Number of unanswered PINGs after which nats.js closes a connection. */
const maxPingsOut = 2;

/** A connection that the server has accepted. */
export interface Established {
  readonly connection: NatsConnection;
  readonly server: NatsAddress;
  /** Resolves when the connection has closed, from either side, with the reason. Never rejects. */
  readonly ended: Promise<HawserError>;
  /** Removes secrets from a text of the server. */
  readonly conceal: (text: string) => string;
}

/** Options and callbacks of one attempt. */
export interface ConnectAttempt {
  /** Client name in the server's list of connections. */
  readonly name: string;
  readonly options: ConnectionOptions;
  readonly files: SecretFiles;
  /** Servers in the order in which they are tried. Default: those of the options. */
  readonly servers?: readonly NatsAddress[];
  /** Aborts the attempt. */
  readonly signal: AbortSignal;
  /** Called for each server that could not be connected; the next one is tried. */
  readonly onFailed?: (server: NatsAddress) => void;
  /** Called with errors that message listeners throw. Default: they are ignored. */
  readonly onDefect?: (error: unknown) => void;
}

/**
 * Reads the files and connects to the first server that accepts, within `natsConnectTimeoutMs` in total; each server
 * gets an equal share of the remaining time. Requires no permission beyond connecting: no JetStream, publish, subscribe
 * or request.
 *
 * @throws HawserError `nats_unavailable`, `nats_unauthorized` or `secret_file`; the reason of the signal once it is
 * aborted
 */
export async function connectOnce({
  name,
  options,
  files,
  servers = natsAddresses(options),
  signal,
  onFailed = () => undefined,
  onDefect = () => undefined,
}: ConnectAttempt): Promise<Established> {
  signal.throwIfAborted();
  const endsAt = performance.now() + natsConnectTimeoutMs;
  const slowFile = (): HawserError =>
    secretFileError(files.reading ?? "tls_ca_path", "the file system does not answer");
  const { tls, credentials } = await inTime(natsConnectTimeoutMs, slowFile, async (over) => {
    const reading = AbortSignal.any([signal, over]);
    return {
      tls: await unlessAborted(readTls(options, files, reading), reading),
      credentials: await unlessAborted(readCredentials(options, files, reading), reading),
    };
  });
  const failures: HawserError[] = [];
  for (const [index, server] of servers.entries()) {
    const shareMs = Math.max(1, Math.round((endsAt - performance.now()) / (servers.length - index)));
    const limit = `within ${servers.length === 1 ? natsConnectTimeoutMs : shareMs} ms`;
    let late = (): HawserError =>
      unavailable(server.name, `the server did not accept the connection and send INFO ${limit}`);
    try {
      return await inTime(
        shareMs,
        () => late(),
        async (over) => {
          const connecting = AbortSignal.any([signal, over]);
          const dialled = await dial({ ...server, tls, limitMs: shareMs }, connecting);
          late = () => unavailable(server.name, `the server did not answer CONNECT ${limit}`);
          return greet({ name, server, tls, credentials, dialled, onDefect, signal: connecting });
        },
      );
    } catch (error) {
      signal.throwIfAborted();
      failures.push(error as HawserError);
      onFailed(server);
    }
  }
  throw noServer(
    servers.map((server) => server.name),
    failures,
  );
}

interface Greeting {
  readonly name: string;
  readonly server: NatsAddress;
  readonly tls: TlsMaterial | undefined;
  readonly credentials: Credentials;
  readonly dialled: Dialled;
  readonly onDefect: (error: unknown) => void;
  readonly signal: AbortSignal;
}

async function greet({ name, server, tls, credentials, dialled, onDefect, signal }: Greeting): Promise<Established> {
  const transport = new SocketTransport(dialled);
  const leave = (): void => transport.discard();
  signal.addEventListener("abort", leave, { once: true });
  if (signal.aborted) leave();
  try {
    const connection = await connectOver(
      transport,
      {
        name,
        servers: server.name,
        authenticator: credentials.authenticator,
        // While it reconnects, nats.js would buffer publishes and make them look as if they were sent.
        reconnect: false,
        // Only configured servers are connected to, whatever other servers INFO lists.
        ignoreClusterUpdates: true,
        resolve: false,
        timeout: natsConnectTimeoutMs,
        pingInterval: natsPingIntervalMs,
        maxPingOut: maxPingsOut,
        inboxPrefix: natsInboxPrefix,
        noAsyncTraces: true,
      },
      onDefect,
    );
    const ended = connection
      .closed()
      .then((reason) => lossOf(server.name, credentials, transport, reason ?? undefined));
    return { connection, server, ended, conceal: credentials.conceal };
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw refusalOf(error);
  } finally {
    signal.removeEventListener("abort", leave);
  }

  function refusalOf(error: unknown): HawserError {
    const refusal = serverRefusal(server.name, credentials, error);
    if (refusal !== undefined) return refusal;
    if (tls === undefined) return socketFailure(server.name, transport.failure);
    const facts = { hasCertificate: tls.hasCertificate, requiresCertificate: dialled.greeting.tls_verify === true };
    return tlsFailure(server.name, facts, transport.failure);
  }
}

/** Error of a connection that has closed. @param reason error of nats.js */
function lossOf(
  server: ServerName,
  credentials: Credentials,
  { failure }: SocketTransport,
  reason: Error | undefined,
): HawserError {
  return serverRefusal(server, credentials, reason) ?? socketFailure(server, failure);
}

/**
 * True if the subject is for replies to requests of Hawser, of this process or another one. All connections of Hawser
 * use one NATS user, so a role that subscribes to `_INBOX.>` by Hawser would receive the replies to all requests.
 * Therefore these messages are passed only to the requester.
 */
export function isOwnInbox(subject: string): boolean {
  return subject.startsWith(natsInboxPrefix) && (subject[natsInboxPrefix.length] ?? ".") === ".";
}

/** True if a subject with wildcards matches subjects at which replies to requests of Hawser arrive. */
export function matchesOwnInbox(pattern: string): boolean {
  const words = pattern.split(".");
  const rest = words.indexOf(">");
  const prefix = natsInboxPrefix.split(".");
  const isBelow = rest >= 0 || words.length > prefix.length;
  return isBelow && prefix.every((word, at) => (rest >= 0 && rest <= at) || words[at] === word || words[at] === "*");
}
