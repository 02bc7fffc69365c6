/**
 * The pages `/healthz` and `/readyz`: which checks there are, and what they come to.
 */

/** What a check finds. */
export interface CheckState {
  readonly ok: boolean;
  /** Since when it has been so, as far as it is known. */
  readonly since?: Date | undefined;
  /** For people. Never a secret: whoever reaches the port reads it. */
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
 * Asks every check. Each page names them all, so that who looks at one sees the whole; `affects` says which of them count.
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
