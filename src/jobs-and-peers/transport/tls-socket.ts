/** TLS over a socket on both sides, and the exporter value that binds the handshake's proofs to the session. */
import { constants } from "node:crypto";
import { isIP, type Socket } from "node:net";
import { connect, createServer, type Server, type TLSSocket } from "node:tls";
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { HawserError } from "../../foundation/errors/index.js";
import type { TlsCredentials } from "../../foundation/tls/index.js";
import { acceptTlsFailure, certificateFault } from "./failures.js";

/** First byte of a TLS connection: the type of a handshake record. */
export const tlsFirstByte = 0x16;

/** Disables session tickets, so that each connection authenticates with the current certificate. */
const secureOptions = constants.SSL_OP_NO_TICKET;

/** Runtime of this process. Deno and Bun have a version of their own besides that of Node.js. */
const runtimeName = ["deno", "bun"].find((name) => name in process.versions) ?? "node";

/**
 * Refuses a runtime whose TLS sockets have no exporter: every handshake would fail.
 *
 * @param runtime `node`, `bun` or `deno`. Default: the runtime of this process
 * @throws HawserError `tls_unsupported` for `deno`
 */
export function checkTlsRuntime(runtime = runtimeName): void {
  if (runtime !== "deno") return;
  throw new HawserError(
    "tls_unsupported",
    "tls between peers does not work with Deno, whose TLS sockets have no exportKeyingMaterial; use Node.js or Bun, or remove tls",
  );
}

/** Exporter value of a TLS session. It is the same on both sides, and unique to the session. */
export function exporterOf(socket: TLSSocket): Uint8Array {
  const { tlsExporterBytes, tlsExporterLabel } = protocolConstants;
  return socket.exportKeyingMaterial(tlsExporterBytes, tlsExporterLabel, Buffer.alloc(0));
}

/**
 * Starts TLS as the dialler on a connected socket. The returned socket owns it and emits `secureConnect`, or `error` if
 * the certificate of the other side is not accepted.
 *
 * @param host host of the dialled address
 */
export function secureDial(socket: Socket, host: string, { options, current }: TlsCredentials): TLSSocket {
  const name = options.serverName ?? host;
  return connect({
    socket,
    host: name,
    // An IP address is not a valid server name (RFC 6066).
    servername: isIP(name) === 0 ? name : "",
    secureContext: current.context,
    minVersion: protocolConstants.tlsMinVersion,
    ...(options.verify === "ca" ? { checkServerIdentity: () => undefined } : {}),
  });
}

/** Events of {@link TlsAcceptor.accept}. Exactly one is called. */
interface AcceptTlsEvents {
  /** @param fault reason why the dialler's certificate is rejected, with mutual TLS */
  onSecure(socket: TLSSocket, fault: HawserError | undefined): void;
  /** The socket closes on its own. */
  onFailed(error: HawserError): void;
}

/** Listener's side of TLS. Accepts sockets with the newest certificate. */
export class TlsAcceptor {
  readonly #server: Server;
  readonly #pending = new Map<string, AcceptTlsEvents>();
  readonly #unsubscribe: () => void;

  constructor(credentials: TlsCredentials) {
    const { mutual = false } = credentials.options;
    this.#server = createServer({
      ...credentials.current.contextOptions,
      requestCert: mutual,
      // A wrong certificate is rejected in the handshake of the protocol instead, so that the dialler gets a reason.
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

  /** Starts TLS on a socket whose first bytes were received and put back. */
  accept(socket: Socket, events: AcceptTlsEvents): void {
    // The server's events carry another object than this socket. The pair of addresses identifies both.
    const key = keyOf(socket);
    this.#pending.set(key, events);
    socket.once("close", () => {
      if (this.#pending.get(key) !== events) return;
      this.#pending.delete(key);
      events.onFailed(acceptTlsFailure(undefined));
    });
    this.#server.emit("connection", socket);
  }

  /** Stops following certificate changes. */
  close(): void {
    this.#unsubscribe();
  }

  #take(socket: TLSSocket): AcceptTlsEvents | undefined {
    const key = keyOf(socket);
    const events = this.#pending.get(key);
    this.#pending.delete(key);
    return events;
  }
}

/**
 * Key of a connection. The dialler's address alone is ambiguous, since it may dial two local addresses from one port.
 */
function keyOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): string {
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}

function clientFault(socket: TLSSocket): HawserError | undefined {
  // Node.js reports a resumed session without a certificate as authorized.
  if (socket.getPeerX509Certificate() === undefined || socket.isSessionReused()) {
    return new HawserError(
      "tls_failed",
      "the dialler presented no certificate, and this peer requires one (mutual TLS); give the dialler tls.cert and tls.key",
    );
  }
  if (socket.authorized) return undefined;
  const fault = certificateFault(String(socket.authorizationError));
  return new HawserError("tls_failed", `the certificate of the dialler ${fault}`);
}
