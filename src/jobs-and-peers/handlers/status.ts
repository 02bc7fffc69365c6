import { EventEmitter } from "node:events";
import { limits } from "../../../generated/ts/rules/peer/catalog.js";
import { asHawserError, type HawserError, shortened } from "../../foundation/errors/index.js";
import { type Logger, RareLog, silentLogger } from "../../foundation/runtime/index.js";

/**
 * Event that no call can throw. `topic` and `peer` identify the other side, if there is one. `message` has at most 8
 * KiB; a longer text is cut and ends with "...".
 */
export type PeerStatus =
  /** A connection to a listener was established. Told by the sender alone. */
  | { readonly kind: "peer_connected"; readonly topic: string; readonly peer: string; readonly message: string }
  /** A connection to a listener ended. */
  | { readonly kind: "peer_disconnected"; readonly topic: string; readonly peer: string; readonly message: string }
  /** A listener registered or unregistered a topic that this peer sends to, refreshes or handles. */
  | { readonly kind: "peer_subscribed"; readonly topic: string; readonly peer: string; readonly message: string }
  | { readonly kind: "peer_unsubscribed"; readonly topic: string; readonly peer: string; readonly message: string }
  /** The topic has no listener in the directory and no known earlier one: sends fail with `no_listener`. */
  | { readonly kind: "sender_route_lost"; readonly topic: string; readonly peer: string; readonly message: string }
  /** Messages could not be stored, which is retried; or not enqueued for a group without room (`peer` is empty). */
  | {
      readonly kind: "sender_store_error";
      readonly topic: string;
      readonly peer: string;
      readonly message: string;
      readonly error: HawserError;
    }
  /** A connection could not be established, or violated the protocol. */
  | {
      readonly kind: "sender_send_error";
      readonly topic: string;
      readonly peer: string;
      readonly message: string;
      readonly error: HawserError;
    }
  /** Too many messages wait for a listener, or to be enqueued for a group without room (`peer` is empty). */
  | { readonly kind: "sender_busy"; readonly topic: string; readonly peer: string; readonly message: string }
  /** Stored messages could not be read, or a cursor could not be committed; the operation is retried. */
  | { readonly kind: "listener_store_error"; readonly message: string; readonly error: HawserError }
  /** An incoming connection was rejected during the handshake. */
  | {
      readonly kind: "handshake_refused";
      readonly address: string;
      readonly code: HawserError["code"];
      readonly message: string;
    }
  /** Messages of a channel are missing, because they were deleted. */
  | {
      readonly kind: "gap";
      readonly peer: string;
      readonly epoch: number;
      readonly first: number;
      readonly last: number;
      readonly message: string;
    }
  /** Changed TLS files cannot be used: the previous certificates stay in use. */
  | { readonly kind: "tls_reload_failed"; readonly message: string; readonly error: HawserError }
  /** Another process owns the name; the last write of this process was rejected. */
  | { readonly kind: "fenced"; readonly message: string }
  /** The name is lost: the peer has stopped. */
  | { readonly kind: "name_lost"; readonly message: string; readonly error: HawserError }
  /**
   * A handler failed with `error`; the message is retried or becomes a dead letter. `attempt` starts at 1. `id` is `message.id`,
   * and `peer` the sender or enqueuer, empty if no peer is.
   */
  | {
      readonly kind: "attempt_failed";
      readonly topic: string;
      readonly peer: string;
      readonly id: string | undefined;
      readonly attempt: number;
      readonly code: string;
      readonly message: string;
      readonly error: unknown;
    }
  /**
   * A message became a dead letter (`stored` true), or an at-most-once message was dropped (`stored` false). `id` and `peer` are as
   * in `attempt_failed`.
   */
  | {
      readonly kind: "dead_letter";
      readonly topic: string;
      readonly peer: string;
      readonly id: string | undefined;
      readonly stored: boolean;
      readonly code: string;
      readonly message: string;
    };

/** Messages of log lines for the kinds of status events that are problems and are logged nowhere else. */
const logged: Partial<Record<PeerStatus["kind"], string>> = {
  attempt_failed: "an attempt to handle a message failed",
  dead_letter: "a message became a dead letter, or was dropped",
  sender_store_error: "messages could not be stored",
  sender_send_error: "a listener could not be reached",
  sender_busy: "a listener is busy",
  listener_store_error: "a statement of the receiving side failed",
  handshake_refused: "a connection was refused",
};

/**
 * Emits the status events of a peer, and logs problems as warnings, the same one at most once in 10 s with a count. An error of an event listener is reported to the process and does not affect the
 * peer.
 */
export class StatusReporter {
  readonly #emitter: EventEmitter<{ status: [PeerStatus] }>;

  readonly #log: RareLog;

  /** @param name name of the peer, for the log */
  constructor(
    emitter: EventEmitter<{ status: [PeerStatus] }> = new EventEmitter(),
    logger: Logger = silentLogger,
    name = "",
  ) {
    this.#emitter = emitter;
    this.#log = new RareLog(logger, name);
  }

  /** Logs the counts of repeated problems. */
  flush(): void {
    this.#log.end();
  }

  /** Reports that a statement of the receiving side has failed. */
  storeFailed(thrown: unknown): void {
    const error = asHawserError(thrown);
    this.report({ kind: "listener_store_error", message: error.message, error });
  }

  report(given: PeerStatus): void {
    const status = { ...given, message: shortened(given.message, limits.DeadLetter.errorMessage.maxBytes) };
    const line = logged[status.kind];
    if (line !== undefined) {
      const { message, error: err, ...details }: PeerStatus & { readonly error?: unknown } = status;
      const where = "topic" in details ? `${details.topic}: ` : "";
      this.#log.warn(line, `${where}${message}`, err === undefined ? details : { ...details, err });
    }
    // Listeners of `once` remove themselves.
    for (const listener of this.#emitter.rawListeners("status")) {
      try {
        listener.call(this.#emitter, status);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
