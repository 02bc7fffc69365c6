/** The verdict of the page: examined on a timer, and never shown as the present one when it is old. */
import { describe, expect, it } from "vitest";
import { silentLogger } from "../../src/foundation/runtime/index.js";
import { type ShownVerdict, Verdicts } from "../../src/operating/console/index.js";
import type { DoctorReport } from "../../src/operating/doctor/index.js";
import { findingsSection, verdictBanner } from "../../src/operating/page/html/status.js";
import { ManualClock } from "../support/manual-clock.js";

const healthy: DoctorReport = { ok: true, findings: [], checks: [{ check: "outbox", outcome: "ok" }] };
const broken: DoctorReport = {
  ok: false,
  findings: [
    { check: "leader", severity: "error", what: "no process leads", remedy: "Start one" },
    { check: "streams", severity: "warning", what: "it is paused", remedy: "Go on" },
  ],
  checks: [{ check: "leader", outcome: "error" }],
};

/** Verdicts of examinations that each end when the test says so. */
function examinations() {
  const clock = new ManualClock();
  const running: { end: (report: DoctorReport) => void; fail: (error: Error) => void }[] = [];
  let begun = 0;
  const verdicts = new Verdicts({ secretsDirectories: [] }, clock, silentLogger, () => {
    begun += 1;
    return new Promise((end, fail) => running.push({ end, fail }));
  });
  return {
    clock,
    verdicts,
    count: () => begun,
    async finish(how: DoctorReport | Error): Promise<void> {
      const one = running.shift()!;
      if (how instanceof Error) one.fail(how);
      else one.end(how);
      await verdicts.settled();
    },
  };
}

const pageText = (verdict: ShownVerdict): string => `${verdictBanner(verdict)}${findingsSection(verdict)}`;

describe("verdicts", () => {
  it("are examined again on a timer, although nobody looks meanwhile, and tell their age", async () => {
    const { clock, verdicts, count, finish } = examinations();
    expect(verdicts.newest).toMatchObject({ report: undefined, isExamining: true, isOld: false });
    clock.advance(3_000);
    await finish(healthy);
    expect(verdicts.newest).toMatchObject({ report: healthy, ageMs: 3_000, isExamining: false });
    expect([clock.timers, clock.keepsAlive]).toEqual([1, false]);
    clock.advance(11_999);
    expect(count()).toBe(1);
    clock.advance(1);
    expect(count()).toBe(2);
    await finish(broken);
    expect(verdicts.newest).toMatchObject({ report: broken, ageMs: 0, isOld: false });
    await verdicts.close();
  });

  it("go on after an examination that failed, which is told with the age of the one before", async () => {
    const { clock, verdicts, count, finish } = examinations();
    void verdicts.newest;
    await finish(healthy);
    clock.advance(15_000);
    await finish(new Error("no route"));
    expect(verdicts.newest).toMatchObject({ report: healthy, ageMs: 15_000, problem: "no route" });
    clock.advance(15_000);
    expect(count()).toBe(3);
    await finish(broken);
    expect(verdicts.newest.problem).toBeUndefined();
    await verdicts.close();
  });

  it("come sooner when the signs change, after a pause that is as long as the examination before", async () => {
    const { clock, verdicts, count, finish } = examinations();
    verdicts.seen("well");
    clock.advance(1_000);
    await finish(healthy);
    verdicts.seen("well");
    clock.advance(2_000);
    // Five seconds after the beginning of the one before.
    verdicts.seen("ill");
    clock.advance(1_999);
    expect(count()).toBe(1);
    clock.advance(1);
    expect(count()).toBe(2);
    verdicts.seen("dead");
    clock.advance(3_000);
    await finish(broken);
    // It took 3 s.
    clock.advance(2_999);
    expect(count()).toBe(2);
    clock.advance(1);
    expect(count()).toBe(3);
    await finish(broken);
    verdicts.seen("dead");
    clock.advance(14_999);
    expect(count()).toBe(3);
    clock.advance(1);
    expect(count()).toBe(4);
    await finish(healthy);
    await verdicts.close();
  });

  it("are old while an examination hangs", async () => {
    const { clock, verdicts, finish } = examinations();
    void verdicts.newest;
    await finish(healthy);
    clock.advance(15_000);
    clock.advance(15_000);
    expect(verdicts.newest).toMatchObject({ ageMs: 30_000, isOld: false, isExamining: true });
    clock.advance(5_000);
    expect(verdicts.newest).toMatchObject({ ageMs: 35_000, isOld: true, isExamining: true });
    await finish(broken);
    // It began 20 s ago, and the next one at once.
    expect(verdicts.newest).toMatchObject({ report: broken, ageMs: 20_000, isOld: false });
    clock.advance(0);
    expect(verdicts.newest.isExamining).toBe(true);
    await finish(healthy);
    await verdicts.close();
  });

  it("end when nobody has looked for ten minutes, begin anew with a look, and end for good with the page", async () => {
    const { clock, verdicts, count, finish } = examinations();
    void verdicts.newest;
    for (let nth = 1; nth <= 40; nth += 1) {
      expect(count()).toBe(nth);
      await finish(healthy);
      clock.advance(15_000);
    }
    expect(count()).toBe(40);
    expect(verdicts.newest).toMatchObject({ report: healthy, isExamining: true });
    expect(count()).toBe(41);
    await finish(healthy);
    await verdicts.close();
    clock.advance(15_000);
    void verdicts.newest;
    expect(count()).toBe(41);
  });
});

describe("a verdict", () => {
  const shown = (report: DoctorReport, ageMs: number, isOld = false): ShownVerdict => ({
    ...{ report, ageMs, isOld, isExamining: false, problem: undefined },
  });

  it("has its age beside the headline, with the worst first", () => {
    const text = pageText(shown(broken, 4_000));
    expect(text).toMatch(
      /<strong class="error">1 error, 1 warning<\/strong>: 1 check of 1 done\..*Examined 4 s ago\..*>error<.*>warning</s,
    );
    expect(pageText(shown(healthy, 4_000))).toContain('<strong class="ok">No errors</strong>: ');
    expect(pageText(shown({ ...broken, ok: true, findings: broken.findings.slice(1) }, 1))).toContain(
      '<strong class="warning">1 warning</strong>: ',
    );
  });

  it.each([["a healthy", healthy] as const, ["a broken", broken] as const])(
    "that is old is not shown as the present one: %s one",
    (_, report) => {
      const page = pageText(shown(report, 93_000, true));
      expect(page).toContain("<strong>The present state is not known.</strong> The last examination found");
      expect(page).toContain("Examined 93 s ago");
      expect(page).not.toMatch(/<(p|strong) class="(ok|error)">/);
    },
  );
});
