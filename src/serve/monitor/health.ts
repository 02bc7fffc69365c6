/**
 * The pages `/healthz` and `/readyz`: which checks there are, and what they come to.
 */

/** What a check finds. */
export interface CheckState {
  readonly ok: boolean;
  /** Since when it has been so, as far as it is known. */
  readonly since?: Date | undefined;
  /** For people. Never a secret: everyone who reaches the port can read it. */
  readonly detail?: string | undefined;
}

/** Something that has to be right. */
export interface HealthCheck {
  /** In snake_case: `postgres`. */
  readonly name: string;
  /** What it spoils when it fails: `health` both pages, `readiness` only `/readyz`. */
  readonly affects: "health" | "readiness";
  /** Says what is known already: asks nobody, and takes no time. */
  readonly state: () => CheckState;
}

/** The pages. */
export type HealthPage = "health" | "readiness";

/** What a page says. */
export interface HealthReport {
  readonly isOk: boolean;
  readonly checks: readonly (CheckState & Pick<HealthCheck, "name" | "affects">)[];
}

/**
 * Asks every check. Each page names them all, so that a reader of one sees the whole; `affects` says which of them count.
 *
 * @param onThrown a check has thrown, which is a defect; it counts as failed
 */
export function healthReport(
  page: HealthPage,
  checks: readonly HealthCheck[],
  onThrown: (name: string, error: unknown) => void,
): HealthReport {
  const found = checks.map(({ name, affects, state }) => {
    try {
      const { ok, since, detail } = state();
      return { name, ok, affects, since, detail };
    } catch (error) {
      onThrown(name, error);
      return { name, ok: false, affects, detail: "the check itself failed; the log says why" };
    }
  });
  const isOk = found.every(({ ok, affects }) => ok || (page === "health" && affects === "readiness"));
  return { isOk, checks: found };
}

/** Whether a server has answered lately. One that has not answered yet has its time from the start. */
export class Reachability {
  readonly #withinMs: number;
  readonly #now: () => number;
  readonly #startedAt: number;
  /** When the present series of answers, each within the time of the one before, began. */
  #since: number | undefined;
  #lastAt: number | undefined;

  /**
   * @param withinMs how long ago the last answer may be
   * @param now milliseconds since 1970, of a clock that never goes back
   */
  constructor(withinMs: number, now: () => number = () => performance.timeOrigin + performance.now()) {
    this.#withinMs = withinMs;
    this.#now = now;
    this.#startedAt = now();
  }

  /** The server has answered: whatever it said. */
  answered(): void {
    const now = this.#now();
    if (this.#lastAt === undefined || now - this.#lastAt > this.#withinMs) this.#since = now;
    this.#lastAt = now;
  }

  /** Failing, it is so since the last answer. */
  get state(): CheckState {
    const lastAt = this.#lastAt ?? this.#startedAt;
    const silentMs = this.#now() - lastAt;
    if (silentMs <= this.#withinMs) return { ok: true, since: new Date(this.#since ?? this.#startedAt) };
    const seconds = Math.floor(silentMs / 1_000);
    const detail = this.#lastAt === undefined ? `no answer yet, for ${seconds} s` : `no answer for ${seconds} s`;
    return { ok: false, since: new Date(lastAt), detail };
  }
}
