/**
 * Dials the NATS server: TCP, the server's INFO, and TLS, up to the start of the client protocol.
 *
 * Hawser dials itself and passes the socket to nats.js. If nats.js dialled, a socket whose server sends no INFO would
 * never be closed, dialling could not be aborted, the certificate of an IP address would be verified for "localhost",
 * and the server could turn on TLS.
 */
import { connect as connectTcp, isIP, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import type { ServerInfo } from "@nats-io/transport-node";
import { addressAttempts } from "../../foundation/runtime/index.js";
import {
  type ServerName,
  serverName,
  singleLine,
  socketFailure,
  tlsFailure,
  tlsMissing,
  tlsRequired,
  unavailable,
} from "./connect-failure.js";
import type { TlsMaterial } from "./credentials.js";

/** The longest greeting of a NATS server that is read; in a large cluster it lists many addresses. */
const maxGreetingBytes = 64 * 1024;

/** A connected socket whose server has sent INFO. Owned by the caller. */
export interface Dialled {
  readonly socket: Socket | TLSSocket;
  /** Received bytes: INFO, and without TLS perhaps more. */
  readonly received: Buffer;
  readonly greeting: Partial<ServerInfo>;
}

/** Target address and TLS of one dial. */
export interface DialTarget {
  readonly host: string;
  readonly port: number;
  /** Undefined if TLS is off. */
  readonly tls: TlsMaterial | undefined;
  /** Time limit that the caller enforces by the signal. */
  readonly limitMs: number;
}

/**
 * Connects to the server. Sends nothing but the TLS handshake. If it rejects, the socket is closed.
 *
 * @throws HawserError `nats_unavailable` or `nats_unauthorized`; the reason of the signal once it is aborted
 */
export async function dial(target: DialTarget, signal: AbortSignal): Promise<Dialled> {
  signal.throwIfAborted();
  const server = serverName(target);
  const socket = connectTcp({
    host: target.host,
    port: target.port,
    noDelay: true,
    ...addressAttempts(target.limitMs),
  });
  const leave = (): void => {
    socket.destroy();
  };
  signal.addEventListener("abort", leave, { once: true });
  try {
    const { received, greeting } = await readGreeting(socket, server);
    if (target.tls === undefined) {
      if (greeting.tls_required === true) throw tlsRequired(server);
      return { socket, received, greeting };
    }
    if (greeting.tls_required !== true && greeting.tls_available !== true) throw tlsMissing(server);
    if (received.indexOf("\n") !== received.length - 1) {
      throw unavailable(server, "the server sent more than INFO before TLS, which could be forged");
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
        reject(unavailable(server, `it is not a NATS server: it sent "${singleLine(textOf(received))}"`));
      } else {
        resolve({ received, greeting });
      }
    };
    const onClose = (): void => reject(socketFailure(server, failure));
    socket.on("data", onData);
    socket.on("close", onClose);
    // This listener is never removed, because an "error" event without a listener would end the process.
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
      // The certificate must be valid for the host. An IP address is no server name in TLS (RFC 6066).
      host,
      servername: isIP(host) === 0 ? host : "",
      secureContext: context,
      rejectUnauthorized: verify,
    });
    const onClose = (): void => {
      const facts = { hasCertificate, requiresCertificate: greeting.tls_verify === true };
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
