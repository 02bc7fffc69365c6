/** Pages `/healthz` and `/readyz`: their checks and results. */

/** Result of a check. */
export interface CheckState {
  readonly ok: boolean;
  /** Time of the last change of the result, if known. */
  readonly since?: Date | undefined;
  /** Human-readable explanation. Never contains a secret: everyone who can reach the port can read it. */
  readonly detail?: string | undefined;
}

export interface HealthCheck {
  /** Name in snake_case, such as `postgres`. */
  readonly name: string;
  /** Name of the peer that is checked; undefined for a check of the process. */
  readonly peer?: string | undefined;
  /** Pages that fail with the check: `health` both, `readiness` only `/readyz`. */
  readonly affects: "health" | "readiness";
  /** Returns the known state, without I/O. */
  readonly state: () => CheckState;
}

/** Health page: `/healthz` or `/readyz`. */
export type HealthPage = "health" | "readiness";

/** Contents of a page. */
export interface HealthReport {
  readonly isOk: boolean;
  readonly checks: readonly (CheckState & Pick<HealthCheck, "name" | "peer" | "affects">)[];
}

/**
 * Runs every check. Each page lists the results of all checks; `affects` decides which of them the page fails with.
 *
 * @param onThrown called if a check has thrown, which is a defect; it counts as failed
 */
export function healthReport(
  page: HealthPage,
  checks: readonly HealthCheck[],
  onThrown: (name: string, error: unknown) => void,
): HealthReport {
  const found = checks.map(({ name, peer, affects, state }) => {
    try {
      const { ok, since, detail } = state();
      return { name, peer, ok, affects, since, detail };
    } catch (error) {
      onThrown(name, error);
      return { name, peer, ok: false, affects, detail: "the check itself failed; the log says why" };
    }
  });
  const isOk = found.every(({ ok, affects }) => ok || (page === "health" && affects === "readiness"));
  return { isOk, checks: found };
}

/** Tracks whether a server has answered recently. Before the first answer, the time counts from the start. */
export class Reachability {
  readonly #withinMs: number;
  readonly #now: () => number;
  readonly #startedAt: number;
  /** Start of the current series of answers, each within `withinMs` of the previous one. */
  #since: number | undefined;
  #lastAt: number | undefined;

  /**
   * @param withinMs greatest age of the last answer
   * @param now milliseconds since 1970, from a monotonic clock
   */
  constructor(withinMs: number, now: () => number = () => performance.timeOrigin + performance.now()) {
    this.#withinMs = withinMs;
    this.#now = now;
    this.#startedAt = now();
  }

  /** Records an answer of any kind. */
  answered(): void {
    const now = this.#now();
    if (this.#lastAt === undefined || now - this.#lastAt > this.#withinMs) this.#since = now;
    this.#lastAt = now;
  }

  /** Current state. A failure counts from the time of the last answer. */
  get state(): CheckState {
    const lastAt = this.#lastAt ?? this.#startedAt;
    const silentMs = this.#now() - lastAt;
    if (silentMs <= this.#withinMs) return { ok: true, since: new Date(this.#since ?? this.#startedAt) };
    const seconds = Math.floor(silentMs / 1_000);
    const detail = this.#lastAt === undefined ? `no answer yet, for ${seconds} s` : `no answer for ${seconds} s`;
    return { ok: false, since: new Date(lastAt), detail };
  }
}
