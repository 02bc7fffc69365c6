/**
 * Connections between simulated processes: each direction delivers in order, with delays; a cut ends both directions,
 * loses what is under way, and each side hears of it later, on its own. What was handed to a process before the cut
 * may still be worked on after it.
 */
import type { Position } from "../../../src/jobs-and-peers/channel/index.js";
import type { Ack } from "../../../src/jobs-and-peers/wire/index.js";
import type { ChannelWorld } from "./world.js";

export class Wire {
  open = true;
  /** Position up to which the sender had certainly stored when it sent GoLive. */
  storedAtGoLive: Position | undefined;
  /** The newest at-most-once message that was written while the channel was live. */
  unnumberedId = 0;
  /** The Ack that leaves at the end of the tick. */
  pendingAck: Ack | undefined;
  readonly #lastAt: [number, number] = [0, 0];
  readonly #ended: [boolean, boolean] = [false, false];
  /** Frames that wait because the listener does not read, or has not come to them yet; undefined if there are none to wait for. */
  #unread: (() => void)[] | undefined;
  #isPaused = false;
  #takesUnread = false;
  /** Each side's handler of the end; index 0 is the dialler. */
  readonly onClosed: [() => void, () => void] = [() => {}, () => {}];

  readonly #world: ChannelWorld;
  readonly #bothRunning: () => boolean;

  constructor(world: ChannelWorld, bothRunning: () => boolean) {
    this.#world = world;
    this.#bothRunning = bothRunning;
  }

  /** Sends from a side (0 dialler, 1 listener) to the other, which receives in order. */
  send(side: 0 | 1, receive: () => void): void {
    if (!this.open) return;
    const { schedule, random } = this.#world;
    const at = Math.max(schedule.now + random.delay(1), this.#lastAt[side] + 0.001);
    this.#lastAt[side] = at;
    schedule.after(at - schedule.now, () => {
      // A few frames reach the process although the connection is gone by now: late events, but never out of order.
      if (!this.open) {
        this.#ended[side] ||= random.chance(0.5);
        if (this.#ended[side]) return;
        this.#world.counts.add("fault: late event of a closed connection");
      }
      receive();
    });
  }

  /** Keeps a frame for later while the listener does not read, or has earlier ones to read; true if it did. */
  keepUnread(receive: () => void): boolean {
    if (this.#unread === undefined || this.#takesUnread) return false;
    this.#unread.push(receive);
    return true;
  }

  /** The listener stops or goes on reading. */
  pauseReading(paused: boolean): void {
    this.#isPaused = paused;
    if (paused) this.#unread ??= [];
    else this.#world.schedule.after(0, () => this.#readOn());
  }

  #readOn(): void {
    while (!this.#isPaused && this.#unread !== undefined) {
      const receive = this.#unread.shift();
      if (receive === undefined) this.#unread = undefined;
      else {
        this.#takesUnread = true;
        receive();
        this.#takesUnread = false;
      }
    }
  }

  cut(): void {
    if (!this.open) return;
    this.open = false;
    const { schedule, random } = this.#world;
    // Without a FIN a side finds out by its ping, much later.
    for (const side of [0, 1] as const) {
      const silent = random.chance(0.15);
      if (silent) this.#world.counts.add("fault: half-open connection");
      schedule.after(silent ? random.between(5_000, 25_000) : random.delay(3), () => this.onClosed[side]());
    }
    if (!this.#bothRunning()) this.#world.counts.add("fault: connection to a dead process");
  }
}
