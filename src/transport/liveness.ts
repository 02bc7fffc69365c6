/**
 * Whether the other side is still there, told by the bytes it sends. Pure but for the injected clock.
 *
 *     listening ── pingAfterMs without a byte ──▶ asking ── pingTimeoutMs without a byte ──▶ dead
 *         ▲                                         │
 *         └────────────── any byte ─────────────────┘
 *
 * While this side does not read (paused), silence proves nothing: it goes on sending a ping each pingAfterMs, so that the
 * other side hears of it, and does not count the silence.
 */
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import type { Clock } from "../runtime/index.js";

/** A timer this much late says that this process stood still, not that the other side was silent. */
const stalledMs = 1000;

/** What a {@link Liveness} asks of its connection. */
export interface LivenessEffects {
  /** Send a Ping. */
  ping(): void;
  /** Nothing came in time: end the connection. Called at most once, last. */
  dead(silentMs: number): void;
}

/** Watches one connection from {@link start} until {@link stop}. */
export class Liveness {
  #cancel: () => void = () => {};
  #heardAt: number;
  #paused = false;
  #running = false;

  readonly #clock: Clock;
  readonly #effects: LivenessEffects;

  constructor(clock: Clock, effects: LivenessEffects) {
    this.#clock = clock;
    this.#effects = effects;
    this.#heardAt = clock.now();
  }

  /** Begins to watch. */
  start(): void {
    this.#running = true;
    this.#heardAt = this.#clock.now();
    this.#listen(protocolConstants.pingAfterMs);
  }

  /** Ends watching. */
  stop(): void {
    this.#running = false;
    this.#cancel();
  }

  /** A byte came. Cheap: it only notes the time. */
  heard(): void {
    this.#heardAt = this.#clock.now();
  }

  /** Says whether this side reads at present. */
  setPaused(paused: boolean): void {
    if (this.#paused === paused) return;
    this.#paused = paused;
    // What came meanwhile lies unread in the socket: the silence begins anew.
    if (!paused) this.#heardAt = this.#clock.now();
  }

  #after(delayMs: number, callback: (lateMs: number) => void): void {
    const due = this.#clock.now() + delayMs;
    this.#cancel = this.#clock.setTimeout(() => {
      if (this.#running) callback(this.#clock.now() - due);
    }, delayMs);
  }

  #listen(delayMs: number): void {
    this.#after(delayMs, () => {
      const left = this.#heardAt + protocolConstants.pingAfterMs - this.#clock.now();
      if (left > 0) this.#listen(left);
      else this.#ask();
    });
  }

  #ask(): void {
    const askedAt = this.#clock.now();
    this.#effects.ping();
    this.#after(protocolConstants.pingTimeoutMs, (lateMs) => {
      const heardSince = this.#heardAt >= askedAt;
      if (heardSince) this.#listen(Math.max(0, this.#heardAt + protocolConstants.pingAfterMs - this.#clock.now()));
      else if (this.#paused || lateMs > stalledMs) this.#ask();
      else this.#effects.dead(this.#clock.now() - this.#heardAt);
    });
  }
}
