/**
 * Dependencies between checks, independent of their subjects.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Finding, Verdict } from "../../src/operating/doctor/examine.js";
import { type Check, examine } from "../../src/operating/doctor/examine.js";
import { ManualClock } from "../support/manual-clock.js";

const finding = (severity: Finding["severity"]): Finding => ({ severity, what: "it is broken", remedy: "mend it" });
const check = (name: string, verdict: Verdict, more: Partial<Check> = {}): Check => ({
  name,
  timeoutMs: 1_000,
  run: async () => verdict,
  ...more,
});
const run = (...checks: readonly Check[]) => examine(checks, { totalMs: 10_000, clock: new ManualClock() });

describe("an examination", () => {
  it("leaves out what needs something that has failed, and what needs that", async () => {
    const report = await run(
      check("a", { findings: [finding("error")] }),
      check("b", { findings: [finding("error")] }, { needs: ["a"] }),
      check("c", { seen: "all" }, { needs: ["b"] }),
    );
    expect(report.findings.map((one) => one.check)).toEqual(["a"]);
    expect(report.checks.slice(1)).toEqual([
      { check: "b", outcome: "not_checked", why: "it needs a", blockedBy: "a" },
      { check: "c", outcome: "not_checked", why: "it needs b", blockedBy: "a" },
    ]);
    expect(report.ok).toBe(false);
  });

  it("goes on after warnings, notes, and what could not be looked at", async () => {
    const report = await run(
      check("a", { findings: [finding("warning"), finding("note")], seen: "much" }),
      check("b", { notChecked: "it is hidden" }),
      check("c", { seen: "all" }, { needs: ["a", "b"], explainedBy: ["a"] }),
    );
    expect(report.checks).toMatchObject([
      { outcome: "warning", seen: undefined },
      { outcome: "not_checked", why: "it is hidden" },
      { outcome: "ok", seen: "all" },
    ]);
    expect(report.ok).toBe(true);
  });

  it("does not tell an error that another explains, and tells a warning all the same", async () => {
    const root = check("a", { findings: [finding("error")] });
    const explained = await run(root, check("b", { findings: [finding("error")] }, { explainedBy: ["a"] }));
    expect(explained.findings.map((one) => one.check)).toEqual(["a"]);
    expect(explained.checks[1]).toEqual({
      check: "b",
      outcome: "not_checked",
      why: "run again once `a` succeeds",
    });
    const warned = await run(root, check("b", { findings: [finding("warning")] }, { explainedBy: ["a"] }));
    expect(warned.findings.map((one) => one.check)).toEqual(["a", "b"]);
  });

  it("tells errors first, then warnings and notes, each in the order of the checks", async () => {
    const report = await run(
      check("a", { findings: [finding("note"), finding("warning")] }),
      check("b", { findings: [finding("warning"), finding("error")] }),
      check("c", { findings: [finding("error")] }),
    );
    expect(report.findings.map((one) => `${one.severity} ${one.check}`)).toEqual([
      ...["error b", "error c", "warning a", "warning b", "note a"],
    ]);
  });

  it("leaves out what needs something that is not there, which is no error", async () => {
    const report = await run(
      check("a", { absent: true }),
      check("b", { findings: [finding("error")] }, { needs: ["a"] }),
    );
    expect(report).toMatchObject({ ok: true, findings: [], checks: [{}, { why: "a: there is none" }] });
  });

  it("ends a check that hangs, tells it so, and looks at nothing when all the time is over", async () => {
    const clock = new ManualClock();
    let aborted = false;
    const hanging: Partial<Check> = {
      run: (signal) =>
        new Promise(() => {
          signal.addEventListener("abort", () => {
            aborted = true;
          });
          queueMicrotask(() => clock.advance(1_000));
        }),
    };
    const report = await examine(
      [check("a", {}, hanging), check("b", {}, { ...hanging, timeoutMs: 5_000 }), check("c", { seen: "all" })],
      { totalMs: 2_000, clock },
    );
    expect(aborted).toBe(true);
    expect(report.findings.map(({ what }) => what)).toEqual([
      "the check a did not finish within 1000 ms",
      "the check b did not finish within 1000 ms",
    ]);
    expect(report.checks[2]).toMatchObject({
      outcome: "not_checked",
      why: "the time limit of all checks, 2000 ms, was over",
    });
  });

  it("fails with what a check throws, which is a defect", async () => {
    const broken = check("a", {}, { run: () => Promise.reject(new TypeError("x is not a function")) });
    await expect(run(broken)).rejects.toThrow("x is not a function");
  });

  it("reports each check once, tells no error of a check whose needs failed, and leaves no timer", async () => {
    const verdicts = fc.constantFrom<Verdict>(
      { seen: "all" },
      { absent: true },
      { notChecked: "hidden" },
      { findings: [finding("error")] },
      { findings: [finding("warning")] },
      { findings: [finding("note")], seen: "all" },
    );
    const plans = fc.array(
      fc.record({ verdict: verdicts, needs: fc.array(fc.nat(9)), explainedBy: fc.array(fc.nat(9)) }),
      {
        maxLength: 10,
      },
    );
    await fc.assert(
      fc.asyncProperty(plans, async (plan) => {
        const names = (numbers: readonly number[], at: number) => numbers.filter((n) => n < at).map((n) => `c${n}`);
        const checks = plan.map(({ verdict, needs, explainedBy }, at) =>
          check(`c${at}`, verdict, { needs: names(needs, at), explainedBy: names(explainedBy, at) }),
        );
        const clock = new ManualClock();
        const report = await examine(checks, { totalMs: 1_000, clock });
        expect(report.checks.map((one) => one.check)).toEqual(checks.map(({ name }) => name));
        const withErrors = new Set(
          report.findings.filter(({ severity }) => severity === "error").map((one) => one.check),
        );
        for (const { name, needs, explainedBy } of checks) {
          if (!withErrors.has(name)) continue;
          for (const other of [...needs!, ...explainedBy!]) expect(withErrors.has(other)).toBe(false);
        }
        // Whatever fails, its cause is told.
        const failing = plan.some(
          ({ verdict }, at) => verdict.findings?.[0]?.severity === "error" && checks[at]!.needs!.length === 0,
        );
        if (failing) expect(report.ok).toBe(false);
        expect(report.ok).toBe(withErrors.size === 0);
        expect(clock.timers).toBe(0);
      }),
    );
  });
});
