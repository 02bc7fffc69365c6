/**
 * A socket to the NATS server, up to the point where the client protocol begins: TCP, the server's greeting, TLS.
 *
 * Hawser does this itself and lends the socket to nats.js, whose own way leaves a socket open for ever where a server
 * does not greet, cannot be aborted, checks an IP address against the name "localhost", and turns TLS on by itself.
 */
import { connect as connectTcp, isIP, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import type { ServerInfo } from "@nats-io/transport-node";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import {
  type ServerName,
  serverName,
  shown,
  socketFailure,
  tlsDemanded,
  tlsFailure,
  tlsMissing,
  unavailable,
} from "./connect-failure.js";
import type { TlsMaterial } from "./credentials.js";

const { maxGreetingBytes } = gatewayConstants;

/** A connected socket, whose server has greeted. It belongs to the caller that gets it. */
export interface Dialled {
  readonly socket: Socket | TLSSocket;
  /** What the server sent: the greeting, and without TLS perhaps more. */
  readonly received: Buffer;
  readonly greeting: Partial<ServerInfo>;
}

/** Where to, and how. */
export interface DialTarget {
  readonly host: string;
  readonly port: number;
  /** Undefined: TLS is off. */
  readonly tls: TlsMaterial | undefined;
}

/**
 * Dials. Nothing has been sent to the server when this resolves, other than TLS.
 *
 * @throws HawserError `nats_unavailable` or `nats_unauthorized`; the reason of the signal once it is aborted. The socket is
 * closed then.
 */
export async function dial(target: DialTarget, signal: AbortSignal): Promise<Dialled> {
  signal.throwIfAborted();
  const server = serverName(target);
  const socket = connectTcp({ host: target.host, port: target.port, noDelay: true });
  const leave = (): void => {
    socket.destroy();
  };
  signal.addEventListener("abort", leave, { once: true });
  try {
    const { received, greeting } = await readGreeting(socket, server);
    if (target.tls === undefined) {
      if (greeting.tls_required === true) throw tlsDemanded(server);
      return { socket, received, greeting };
    }
    if (greeting.tls_required !== true && greeting.tls_available !== true) throw tlsMissing(server);
    if (received.indexOf("\n") !== received.length - 1) {
      throw unavailable(server, "the server sent more than its greeting before TLS, which might be forged");
    }
    return { socket: await secure(socket, target, target.tls, server, greeting), received, greeting };
  } catch (error) {
    socket.destroy();
    throw signal.aborted ? signal.reason : error;
  } finally {
    signal.removeEventListener("abort", leave);
  }
}

function readGreeting(socket: Socket, server: ServerName): Promise<Pick<Dialled, "received" | "greeting">> {
  return new Promise((resolve, reject) => {
    let received: Buffer = Buffer.alloc(0);
    let failure: Error | undefined;
    const onData = (chunk: Buffer): void => {
      received = Buffer.concat([received, chunk]);
      const end = received.indexOf("\n");
      if (end < 0 && received.length <= maxGreetingBytes && mayGreet(received)) return;
      socket.off("data", onData);
      socket.off("close", onClose);
      const greeting = parseGreeting(received.subarray(0, end + 1));
      if (greeting === undefined) {
        reject(unavailable(server, `what listens there is no NATS server: it sent "${shown(textOf(received))}"`));
      } else {
        resolve({ received, greeting });
      }
    };
    const onClose = (): void => reject(socketFailure(server, failure));
    socket.on("data", onData);
    socket.on("close", onClose);
    // Stays: an error of a socket that nobody listens to would end the process.
    socket.on("error", (error) => {
      failure = error;
    });
  });
}

const greetingStart = "INFO ";

function mayGreet(received: Buffer): boolean {
  const start = received.toString("latin1", 0, greetingStart.length).toUpperCase();
  return greetingStart.startsWith(start);
}

function parseGreeting(line: Buffer): Partial<ServerInfo> | undefined {
  if (!mayGreet(line)) return undefined;
  try {
    const greeting: unknown = JSON.parse(line.toString("utf8", greetingStart.length));
    return typeof greeting === "object" && greeting !== null ? greeting : undefined;
  } catch {
    return undefined;
  }
}

function textOf(received: Buffer): string {
  return received.toString("latin1", 0, 60);
}

function secure(
  socket: Socket,
  { host }: DialTarget,
  { context, verify, hasCertificate }: TlsMaterial,
  server: ServerName,
  greeting: Partial<ServerInfo>,
): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    let failure: Error | undefined;
    const secured = connectTls({
      socket,
      // What the certificate must be for. An address is no server name (RFC 6066).
      host,
      servername: isIP(host) === 0 ? host : "",
      secureContext: context,
      rejectUnauthorized: verify,
    });
    const onClose = (): void => {
      const facts = { hasCertificate, demandsCertificate: greeting.tls_verify === true };
      reject(tlsFailure(server, facts, failure));
    };
    secured.on("error", (error) => {
      failure = error;
    });
    secured.once("close", onClose);
    secured.once("secureConnect", () => {
      secured.off("close", onClose);
      resolve(secured);
    });
  });
}
