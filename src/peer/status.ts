import { EventEmitter } from "node:events";
import { limits } from "../../generated/ts/rules/peer/catalog.js";
import { type HawserError, shortened } from "../errors/index.js";

/**
 * Something happened that no call can throw. `topic` and `peer` are the other side's, where there is one. `message` has
 * 8 KiB at most, and ends with "..." where it was longer.
 */
export type PeerStatus =
  /** A connection to a listener was made. */
  | { readonly kind: "peer_connected"; readonly topic: string; readonly peer: string; readonly message: string }
  /** The connection to a listener ended. */
  | { readonly kind: "peer_disconnected"; readonly topic: string; readonly peer: string; readonly message: string }
  /** A listener began, or stopped, to serve a topic that this peer has sent to, refreshed or handles. */
  | { readonly kind: "peer_subscribed"; readonly topic: string; readonly peer: string; readonly message: string }
  | { readonly kind: "peer_unsubscribed"; readonly topic: string; readonly peer: string; readonly message: string }
  /** Nobody serves the topic any more, and no listener of it is remembered: sends fail with `no_listener`. */
  | { readonly kind: "sender_route_lost"; readonly topic: string; readonly peer: string; readonly message: string }
  /** Messages could not be stored; they are tried again. */
  | {
      readonly kind: "sender_store_error";
      readonly topic: string;
      readonly peer: string;
      readonly message: string;
      readonly error: HawserError;
    }
  /** A connection could not be made, or broke a rule. */
  | {
      readonly kind: "sender_send_error";
      readonly topic: string;
      readonly peer: string;
      readonly message: string;
      readonly error: HawserError;
    }
  /** The send queue for a listener is full, or that for a group, whose `peer` is empty. */
  | { readonly kind: "sender_busy"; readonly topic: string; readonly peer: string; readonly message: string }
  /** Stored messages could not be read or claimed, or a cursor not be written; it is tried again. */
  | { readonly kind: "listener_store_error"; readonly message: string; readonly error: HawserError }
  /** A dialler was refused. */
  | {
      readonly kind: "handshake_refused";
      readonly address: string;
      readonly code: HawserError["code"];
      readonly message: string;
    }
  /** Messages of a channel are nowhere: they were deleted. */
  | {
      readonly kind: "gap";
      readonly peer: string;
      readonly epoch: number;
      readonly first: number;
      readonly last: number;
      readonly message: string;
    }
  /** Certificate, key or authorities changed and cannot be used: what was read before stays in use. */
  | { readonly kind: "tls_reload_failed"; readonly message: string; readonly error: HawserError }
  /** Another process has the name; what this one wrote last was refused. */
  | { readonly kind: "fenced"; readonly message: string }
  /** The name is lost: the peer has ended. */
  | { readonly kind: "name_lost"; readonly message: string; readonly error: HawserError }
  /** A handler has failed, with `error`; the message is tried again, or given up. `attempt` is from 1. */
  | {
      readonly kind: "attempt_failed";
      readonly topic: string;
      readonly peer: string;
      readonly attempt: number;
      readonly code: string;
      readonly message: string;
      readonly error: unknown;
    }
  /** A message was given up; an at-most-once one (`stored` false) is gone. */
  | {
      readonly kind: "dead_letter";
      readonly topic: string;
      readonly peer: string;
      readonly stored: boolean;
      readonly code: string;
      readonly message: string;
    };

/** Emits the statuses of a peer. A listener that throws is reported to the process, not to the peer. */
export class StatusTeller {
  readonly #emitter: EventEmitter<{ status: [PeerStatus] }>;

  constructor(emitter: EventEmitter<{ status: [PeerStatus] }> = new EventEmitter()) {
    this.#emitter = emitter;
  }

  tell(told: PeerStatus): void {
    const status = { ...told, message: shortened(told.message, limits.DeadLetter.errorMessage.maxBytes) };
    // Those of `once` take themselves away.
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
