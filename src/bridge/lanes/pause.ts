import type { LaneSettings } from "./settings.js";

/** The pause of a lane after failures that are no message's fault: longer with each in a row. */
export class Pause {
  #failures = 0;
  #end = Number.NEGATIVE_INFINITY;

  readonly #settings: LaneSettings;

  constructor(settings: LaneSettings) {
    this.#settings = settings;
  }

  /** When it ends; in the past if there is none. */
  get until(): number {
    return this.#end;
  }

  /** Begins after one more failure: between half of the doubled time and the whole of it. */
  begin(now: number): void {
    const { pauseMinMs, pauseMaxMs, random } = this.#settings;
    const longest = Math.min(pauseMaxMs, pauseMinMs * 2 ** this.#failures);
    this.#failures += 1;
    this.#end = now + longest * (0.5 + random() / 2);
  }

  /** Something went well: the next pause is a short one again. */
  forget(): void {
    this.#failures = 0;
    this.#end = Number.NEGATIVE_INFINITY;
  }
}
