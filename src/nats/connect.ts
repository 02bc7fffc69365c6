/**
 * One attempt to connect to the NATS server, from the files of the options to the server's answer to our greeting.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import type { CompleteNatsServerOptions } from "../../generated/ts/nats-options/index.js";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import type { HawserError } from "../errors/index.js";
import { inTime, unlessAborted } from "../runtime/index.js";
import { closing, noServer, refusal, type ServerName, tlsFailure, unavailable } from "./connect-failure.js";
import { type Credentials, readCredentials, readTls, type TlsMaterial } from "./credentials.js";
import { type Dialled, dial } from "./dial.js";
import { type SecretFiles, secretFileError } from "./secret-files.js";
import { type NatsAddress, natsAddresses } from "./server-choice.js";
import { connectOver, SocketTransport } from "./socket-transport.js";

const { natsConnectTimeoutMs, natsPingIntervalMs, natsInboxPrefix } = gatewayConstants;

/** Of that many signs of life asked for, the last may stay unanswered no longer than the next would be asked for. */
const maxPingsOut = 2;

/** A connection that the server has accepted. */
export interface Established {
  readonly connection: NatsConnection;
  readonly server: NatsAddress;
  /** Resolves when the connection has ended, from either side, with what is known of the reason. Never rejects. */
  readonly ended: Promise<HawserError>;
  /** The server's words without what is secret. */
  readonly conceal: (text: string) => string;
}

/** What to connect with. */
export interface ConnectAttempt {
  /** The name of this client in the server's lists. */
  readonly name: string;
  readonly options: CompleteNatsServerOptions;
  readonly files: SecretFiles;
  /** The servers, in the order in which they are tried. Default: those of the options. */
  readonly servers?: readonly NatsAddress[];
  /** Ends the attempt. */
  readonly signal: AbortSignal;
  /** Told of a server to which no connection was made; the next one is tried. */
  readonly onFailed?: (server: NatsAddress) => void;
  /** Told of what a listener to the connection's messages throws. Default: nobody listens. */
  readonly onDefect?: (error: unknown) => void;
}

/**
 * Reads the files and connects to the first server that takes the connection, within `natsConnectTimeoutMs` for all; each
 * gets an equal share of what is left. Nothing but connecting is asked of a server: no JetStream, no right to publish,
 * subscribe or request.
 *
 * @throws HawserError `nats_unavailable`, `nats_unauthorized` or `secret_file`; the reason of the signal once it is aborted
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
    let late = (): HawserError => unavailable(server.name, `the server did not take the connection and greet ${limit}`);
    try {
      return await inTime(
        shareMs,
        () => late(),
        async (over) => {
          const connecting = AbortSignal.any([signal, over]);
          const dialled = await dial({ ...server, tls }, connecting);
          late = () => unavailable(server.name, `the server did not answer our greeting ${limit}`);
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
        // It would keep what is published while it reconnects, and let it look as if it had been sent.
        reconnect: false,
        // Only the configured server, whatever it says of others.
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
    const ended = connection.closed().then((reason) => lost(server.name, credentials, transport, reason ?? undefined));
    return { connection, server, ended, conceal: credentials.conceal };
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw refusalOf(error);
  } finally {
    signal.removeEventListener("abort", leave);
  }

  function refusalOf(error: unknown): HawserError {
    const said = refusal(server.name, credentials, error);
    if (said !== undefined) return said;
    if (tls === undefined) return unavailable(server.name, closing(transport.failure), { cause: transport.failure });
    const facts = { hasCertificate: tls.hasCertificate, demandsCertificate: dialled.greeting.tls_verify === true };
    return tlsFailure(server.name, facts, transport.failure);
  }
}

function lost(
  server: ServerName,
  credentials: Credentials,
  { failure }: SocketTransport,
  reason: Error | undefined,
): HawserError {
  return refusal(server, credentials, reason) ?? unavailable(server, closing(failure), { cause: failure });
}

/**
 * Whether answers to requests of Hawser come to the subject, of this process or another one. All connections of Hawser use
 * one NATS user, and a client that may subscribe as that user could hear the answers to all requests: such messages are
 * handed to no one but the requester.
 */
export function isOwnInbox(subject: string): boolean {
  return subject.startsWith(natsInboxPrefix) && (subject[natsInboxPrefix.length] ?? ".") === ".";
}
