/**
 * The dialler's way to an open socket: TCP, then TLS where it is spoken.
 *
 *     connecting ──▶ (TLS) ──▶ open
 *          └───────────┴─ error, close ──▶ failed
 */
import { connect, type Socket } from "node:net";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { TransportError } from "../errors/index.js";
import { type Address, formatAddress } from "../wire/index.js";
import { connectionEnded } from "./frame-socket.js";
import { lookupLoopback } from "./plaintext.js";
import type { TlsCredentials } from "./tls-credentials.js";
import { dialTlsFailure } from "./tls-failure.js";
import { exporterOf, secureDial } from "./tls-socket.js";

/** Where to, and how. */
export interface SocketTarget extends Address {
  /** Speak TLS, with these. */
  readonly tls: TlsCredentials | undefined;
  /** Host names may lead beyond loopback. */
  readonly anywhere: boolean;
}

/** Called once, one of the two; never after the cancelling. */
export interface OpenSocketEvents {
  /** @param exporter of the TLS session; empty without TLS */
  onOpen(socket: Socket, exporter: Uint8Array): void;
  /** `connection_lost`, `plaintext_refused`, `tls_failed` or `tls_mismatch`. */
  onFailed(error: TransportError): void;
}

/** Opens a socket. @returns what cancels it, and does nothing once it is open */
export function openSocket(target: SocketTarget, events: OpenSocketEvents): () => void {
  const { host, port, tls, anywhere } = target;
  const raw = connect({
    host,
    port,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: protocolConstants.pingAfterMs,
    ...(anywhere ? {} : { lookup: lookupLoopback }),
  });
  let stop = follow(raw, "connect", opened, (cause) => {
    // A name that leads elsewhere was refused while it was looked up.
    events.onFailed(TransportError.is(cause) ? cause : connectionEnded(cause));
  });
  return () => stop();

  function opened(): void {
    if (tls === undefined) {
      events.onOpen(raw, new Uint8Array(0));
      return;
    }
    // What happens to it from here on, the secured one tells.
    raw.on("error", () => {});
    const secured = secureDial(raw, host, tls);
    stop = follow(
      secured,
      "secureConnect",
      () => events.onOpen(secured, exporterOf(secured)),
      (cause) => events.onFailed(dialTlsFailure(formatAddress(target), cause)),
    );
  }
}

/** Waits for the event that says that a socket is ready, or for its end. @returns what destroys it, until it is ready */
function follow(
  socket: Socket,
  ready: "connect" | "secureConnect",
  onReady: () => void,
  onFailed: (cause: Error | undefined) => void,
): () => void {
  let over = false;
  const end = (): void => {
    over = true;
    socket.off(ready, isReady).off("error", failed).off("close", closed);
  };
  const fail = (cause: Error | undefined): void => {
    if (over) return;
    end();
    socket.on("error", () => {});
    socket.destroy();
    onFailed(cause);
  };
  const failed = (cause: Error): void => fail(cause);
  const closed = (): void => fail(undefined);
  const isReady = (): void => {
    end();
    onReady();
  };
  socket.on(ready, isReady).on("error", failed).on("close", closed);
  return () => {
    if (over) return;
    end();
    socket.on("error", () => {});
    socket.destroy();
  };
}
