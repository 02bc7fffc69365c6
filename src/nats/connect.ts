/**
 * One attempt to connect to the NATS server, from the files of the options to the server's answer to our greeting.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import type { CompleteNatsServerOptions } from "../../generated/ts/nats-options/index.js";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import type { NatsError } from "../errors/index.js";
import { closing, refusal, type ServerName, serverName, tlsFailure, unavailable } from "./connect-failure.js";
import { type Credentials, readCredentials } from "./credentials.js";
import { type Dialled, dial } from "./dial.js";
import { type SecretFiles, secretFileError } from "./secret-files.js";
import { connectOver, SocketTransport } from "./socket-transport.js";
import { readTls, type TlsMaterial } from "./tls.js";

const { natsConnectTimeoutMs, natsPingIntervalMs, natsInboxPrefix } = gatewayConstants;

/** Of that many signs of life asked for, the last may stay unanswered no longer than the next would be asked for. */
const MAX_PINGS_OUT = 2;

/** A connection that the server has accepted. */
export interface Established {
  readonly connection: NatsConnection;
  readonly server: ServerName;
  /** Resolves when the connection has ended, whoever ended it, with what is known of the reason. Never rejects. */
  readonly ended: Promise<NatsError>;
  /** The server's words without what is secret. */
  readonly conceal: (text: string) => string;
}

/** What to connect with. */
export interface ConnectAttempt {
  /** The name of this client in the server's lists. */
  readonly name: string;
  readonly options: CompleteNatsServerOptions;
  readonly files: SecretFiles;
  /** Ends the attempt. */
  readonly signal: AbortSignal;
  /** Told of what a listener to the connection's messages throws. Default: nobody listens. */
  readonly onDefect?: (error: unknown) => void;
}

/**
 * Reads the files and connects, within `natsConnectTimeoutMs`. Nothing but connecting is asked of the server: no
 * JetStream, no right to publish, subscribe or request.
 *
 * @throws NatsError `nats_unavailable`, `nats_unauthorized` or `secret_file`; the reason of the signal once it is aborted
 */
export async function connectOnce({
  name,
  options,
  files,
  signal,
  onDefect = () => undefined,
}: ConnectAttempt): Promise<Established> {
  signal.throwIfAborted();
  const server = serverName(options);
  let late = (): NatsError => secretFileError(files.reading ?? "tls_ca_path", "the file system does not answer");
  const inTime = `within ${natsConnectTimeoutMs} ms`;
  const attempt = new AbortController();
  const onAbort = (): void => attempt.abort(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  const timer = setTimeout(() => attempt.abort(late()), natsConnectTimeoutMs);
  try {
    const tls = await unlessAborted(readTls(options, files, attempt.signal), attempt.signal);
    const credentials = await unlessAborted(readCredentials(options, files, attempt.signal), attempt.signal);
    late = () => unavailable(server, `the server did not take the connection and greet ${inTime}`);
    const { host, port } = options;
    const dialled = await dial({ host, port, tls }, attempt.signal);
    late = () => unavailable(server, `the server did not answer our greeting ${inTime}`);
    return await greet({ name, server, tls, credentials, dialled, onDefect, signal: attempt.signal });
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
  }
}

interface Greeting {
  readonly name: string;
  readonly server: ServerName;
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
        servers: server,
        authenticator: credentials.authenticator,
        // It would keep what is published while it reconnects, and let it look as if it had been sent.
        reconnect: false,
        // Only the configured server, whatever it says of others.
        ignoreClusterUpdates: true,
        resolve: false,
        timeout: natsConnectTimeoutMs,
        pingInterval: natsPingIntervalMs,
        maxPingOut: MAX_PINGS_OUT,
        inboxPrefix: natsInboxPrefix,
        noAsyncTraces: true,
      },
      onDefect,
    );
    const ended = connection.closed().then((reason) => lost(server, credentials, transport, reason ?? undefined));
    return { connection, server, ended, conceal: credentials.conceal };
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw refusalOf(error);
  } finally {
    signal.removeEventListener("abort", leave);
  }

  function refusalOf(error: unknown): NatsError {
    const said = refusal(server, credentials, error);
    if (said !== undefined) return said;
    if (tls === undefined) return unavailable(server, closing(transport.failure), { cause: transport.failure });
    const facts = { hasCertificate: tls.hasCertificate, demandsCertificate: dialled.greeting.tls_verify === true };
    return tlsFailure(server, facts, transport.failure);
  }
}

function lost(
  server: ServerName,
  credentials: Credentials,
  { failure }: SocketTransport,
  reason: Error | undefined,
): NatsError {
  return refusal(server, credentials, reason) ?? unavailable(server, closing(failure), { cause: failure });
}

/** Settles as the promise does, or with the reason of the signal as soon as it is aborted. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
