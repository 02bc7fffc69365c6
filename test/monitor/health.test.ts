import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type CheckState, type HealthCheck, healthReport, Reachability } from "../../src/foundation/monitor/index.js";

const never = (): never => {
  throw new Error("no check throws here");
};

const check = (name: string, affects: HealthCheck["affects"], state: CheckState): HealthCheck => ({
  name,
  affects,
  state: () => state,
});

describe("healthReport", () => {
  it("says that nobody is ready who is not healthy, and that who is ready is healthy", () => {
    const affects = fc.constantFrom("health" as const, "readiness" as const);
    const anyCheck = fc.record({ name: fc.string(), affects, state: fc.boolean().map((ok) => () => ({ ok })) });
    fc.assert(
      fc.property(fc.array(anyCheck), (checks) => {
        const isHealthy = healthReport("health", checks, never).isOk;
        const isReady = healthReport("readiness", checks, never).isOk;
        expect(isReady).toBe(checks.every(({ state }) => state().ok));
        expect(isHealthy).toBe(checks.every(({ affects, state }) => state().ok || affects === "readiness"));
        expect(isReady && !isHealthy).toBe(false);
      }),
    );
  });

  it("names every check on either page, in the order given", () => {
    const since = new Date(0);
    const checks = [
      check("postgres", "health", { ok: true, since }),
      check("nats_gateway", "readiness", { ok: false, detail: "why" }),
    ];
    const expected = [
      { name: "postgres", ok: true, affects: "health", since, detail: undefined },
      { name: "nats_gateway", ok: false, affects: "readiness", since: undefined, detail: "why" },
    ];
    for (const page of ["health", "readiness"] as const) {
      expect(healthReport(page, checks, never).checks).toEqual(expected);
    }
  });

  it("takes a check that throws for one that fails, and tells of it without showing the error", () => {
    const thrown: unknown[] = [];
    const error = new Error("password=hunter2");
    const broken: HealthCheck = {
      name: "broken",
      affects: "health",
      state: () => {
        throw error;
      },
    };
    const report = healthReport("health", [broken], (...told) => thrown.push(told));
    expect(report.isOk).toBe(false);
    expect(JSON.stringify(report)).not.toContain("hunter2");
    expect(thrown).toEqual([["broken", error]]);
  });
});

describe("Reachability", () => {
  const withinMs = 15_000;

  it("holds for so long after an answer, and then fails since that answer", () => {
    let now = 1_000;
    const postgres = new Reachability(withinMs, () => now);
    postgres.answered();
    now += withinMs;
    expect(postgres.state).toEqual({ ok: true, since: new Date(1_000) });
    now += 1;
    expect(postgres.state).toEqual({ ok: false, since: new Date(1_000), detail: "no answer for 15 s" });
  });

  it("begins anew with the first answer after a silence", () => {
    let now = 0;
    const postgres = new Reachability(withinMs, () => now);
    postgres.answered();
    now = 60_000;
    postgres.answered();
    now = 70_000;
    postgres.answered();
    expect(postgres.state).toEqual({ ok: true, since: new Date(60_000) });
  });

  it("gives a server that has never answered its time from the start", () => {
    let now = 5_000;
    const postgres = new Reachability(withinMs, () => now);
    expect(postgres.state).toEqual({ ok: true, since: new Date(5_000) });
    now += withinMs + 5_000;
    expect(postgres.state).toEqual({ ok: false, since: new Date(5_000), detail: "no answer yet, for 20 s" });
  });

  it("is right after any course of answers", () => {
    const steps = fc.array(fc.record({ afterMs: fc.integer({ min: 0, max: 40_000 }), answers: fc.boolean() }));
    fc.assert(
      fc.property(steps, (course) => {
        let now = 0;
        let answeredAt = 0;
        const postgres = new Reachability(withinMs, () => now);
        for (const { afterMs, answers } of course) {
          now += afterMs;
          if (answers) {
            answeredAt = now;
            postgres.answered();
          }
          const { ok, since } = postgres.state;
          expect(ok).toBe(now - answeredAt <= withinMs);
          expect(since!.getTime()).toBeLessThanOrEqual(now);
          if (!ok) expect(since).toEqual(new Date(answeredAt));
        }
      }),
    );
  });
});
