/**
 * TLS over a socket, on both sides, and the value that ties the handshake's proofs to it.
 */
import { constants } from "node:crypto";
import { isIP, type Socket } from "node:net";
import { connect, createServer, type Server, type TLSSocket } from "node:tls";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { HawserError } from "../errors/index.js";
import { acceptTlsFailure, certificateFault } from "./failures.js";
import type { TlsCredentials } from "./tls-credentials.js";

/** The first byte of a connection that begins with TLS: the type of a handshake record. */
export const tlsFirstByte = 0x16;

/** No tickets to resume sessions with: each connection proves itself anew, with the certificate of the day. */
const secureOptions = constants.SSL_OP_NO_TICKET;

/** The exporter value of an established TLS session: the same on both sides of it, and on no other. */
export function exporterOf(socket: TLSSocket): Uint8Array {
  const { tlsExporterBytes, tlsExporterLabel } = protocolConstants;
  return socket.exportKeyingMaterial(tlsExporterBytes, tlsExporterLabel, Buffer.alloc(0));
}

/**
 * Begins TLS as the dialler on a connected socket, which belongs to the result from now on. The result tells
 * `secureConnect`, or `error` where the certificate of the other side is not accepted.
 *
 * @param host of the address that was dialled
 */
export function secureDial(socket: Socket, host: string, { options, current }: TlsCredentials): TLSSocket {
  const name = options.serverName ?? host;
  return connect({
    socket,
    host: name,
    // An address is no server name (RFC 6066).
    servername: isIP(name) === 0 ? name : "",
    secureContext: current.context,
    minVersion: protocolConstants.tlsMinVersion,
    ...(options.verify === "ca" ? { checkServerIdentity: () => undefined } : {}),
  });
}

/** Who hears what became of TLS on an accepted socket: one of the two, once. */
interface AcceptTlsEvents {
  /** @param fault why the dialler's certificate is not accepted, where mutual TLS is asked for */
  onSecure(socket: TLSSocket, fault: HawserError | undefined): void;
  /** The socket closes by itself. */
  onFailed(error: HawserError): void;
}

/** The TLS side of a listener: takes sockets over, always with the newest certificate. */
export class TlsAcceptor {
  readonly #server: Server;
  readonly #underWay = new Map<string, AcceptTlsEvents>();
  readonly #unsubscribe: () => void;

  constructor(credentials: TlsCredentials) {
    const { mutual = false } = credentials.options;
    this.#server = createServer({
      ...credentials.current.contextOptions,
      requestCert: mutual,
      // Refused in the handshake that follows: so the dialler is told why, and not merely cut off.
      rejectUnauthorized: false,
      secureOptions,
    });
    this.#unsubscribe = credentials.subscribe({
      onReloaded: ({ contextOptions }) => this.#server.setSecureContext({ ...contextOptions, secureOptions }),
    });
    this.#server.on("secureConnection", (socket) => {
      this.#take(socket)?.onSecure(socket, mutual ? clientFault(socket) : undefined);
    });
    this.#server.on("tlsClientError", (error, socket) => this.#take(socket)?.onFailed(acceptTlsFailure(error)));
  }

  /** Begins TLS on a socket that has received its first bytes and put them back. */
  accept(socket: Socket, events: AcceptTlsEvents): void {
    // The server's events tell of another object than this socket; what both have is the two addresses.
    const key = keyOf(socket);
    this.#underWay.set(key, events);
    socket.once("close", () => {
      if (this.#underWay.get(key) !== events) return;
      this.#underWay.delete(key);
      events.onFailed(acceptTlsFailure(undefined));
    });
    this.#server.emit("connection", socket);
  }

  /** Hears of new certificates no more. */
  close(): void {
    this.#unsubscribe();
  }

  #take(socket: TLSSocket): AcceptTlsEvents | undefined {
    const key = keyOf(socket);
    const events = this.#underWay.get(key);
    this.#underWay.delete(key);
    return events;
  }
}

/** The dialler's address alone does not do: it may dial two addresses of this machine from one port. */
function keyOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): string {
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}

function clientFault(socket: TLSSocket): HawserError | undefined {
  // Node takes a resumed session without a certificate for an authorized one.
  if (socket.getPeerX509Certificate() === undefined || socket.isSessionReused()) {
    return new HawserError(
      "tls_failed",
      "the dialler showed no certificate, and this peer demands one (mutual TLS); give the dialler tls.cert and tls.key",
    );
  }
  if (socket.authorized) return undefined;
  const fault = certificateFault(String(socket.authorizationError));
  return new HawserError("tls_failed", `the certificate of the dialler ${fault}`);
}
