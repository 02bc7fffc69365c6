/**
 * Detects whether the other side is alive by the bytes that it sends. Pure except for the injected clock.
 *
 *     listening ── pingAfterMs without a byte ──▶ pinged ── pingTimeoutMs without a byte ──▶ dead
 *         ▲                                         │
 *         └────────────── any byte ─────────────────┘
 *
 * While this side does not read (paused), silence proves nothing. It still sends a ping every pingAfterMs, so that the
 * other side receives data, but does not time out.
 */
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import type { Clock } from "../../foundation/runtime/index.js";

/** Timer delay beyond which this process itself was suspended, so that silence proves nothing. */
const stalledMs = 1000;

/** Side effects of a {@link Liveness}. */
export interface LivenessEffects {
  /** Sends a Ping. */
  ping(): void;
  /** Ends the connection, because no byte arrived in time. Called at most once, as the last effect. */
  dead(silentMs: number): void;
}

/** Watches one connection from {@link start} until {@link stop}. */
export class Liveness {
  #cancel: () => void = () => {};
  #lastByteAt: number;
  #paused = false;
  #running = false;

  readonly #clock: Clock;
  readonly #effects: LivenessEffects;

  constructor(clock: Clock, effects: LivenessEffects) {
    this.#clock = clock;
    this.#effects = effects;
    this.#lastByteAt = clock.now();
  }

  /** Starts watching. */
  start(): void {
    this.#running = true;
    this.#lastByteAt = this.#clock.now();
    this.#waitForSilence(protocolConstants.pingAfterMs);
  }

  /** Stops watching. */
  stop(): void {
    this.#running = false;
    this.#cancel();
  }

  /** Records that bytes arrived. Called for each read, so it only stores the time. */
  bytesArrived(): void {
    this.#lastByteAt = this.#clock.now();
  }

  /** Sets whether this side has stopped reading. */
  setPaused(paused: boolean): void {
    if (this.#paused === paused) return;
    this.#paused = paused;
    // Bytes that arrived in between may be unread, so the silence is measured anew.
    if (!paused) this.#lastByteAt = this.#clock.now();
  }

  #after(delayMs: number, callback: (lateMs: number) => void): void {
    const due = this.#clock.now() + delayMs;
    this.#cancel = this.#clock.setTimeout(() => {
      if (this.#running) callback(this.#clock.now() - due);
    }, delayMs);
  }

  #waitForSilence(delayMs: number): void {
    this.#after(delayMs, () => {
      const left = this.#lastByteAt + protocolConstants.pingAfterMs - this.#clock.now();
      if (left > 0) this.#waitForSilence(left);
      else this.#ping();
    });
  }

  #ping(): void {
    const pingedAt = this.#clock.now();
    this.#effects.ping();
    this.#after(protocolConstants.pingTimeoutMs, (lateMs) => {
      const isAlive = this.#lastByteAt >= pingedAt;
      if (isAlive)
        this.#waitForSilence(Math.max(0, this.#lastByteAt + protocolConstants.pingAfterMs - this.#clock.now()));
      else if (this.#paused || lateMs > stalledMs) this.#ping();
      else this.#effects.dead(this.#clock.now() - this.#lastByteAt);
    });
  }
}
