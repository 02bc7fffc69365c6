/** The timer that takes samples: in each step, as long as the page is open. */
import { expect, it } from "vitest";
import { type Logger, silentLogger } from "../../src/foundation/runtime/index.js";
import { Sampler } from "../../src/operating/console/index.js";
import { ManualClock } from "../support/manual-clock.js";

/** Calls that each end when the test says so. */
function calls(logger: Logger = silentLogger) {
  const clock = new ManualClock();
  const running: { end: (nextInMs: number) => void; fail: (error: Error) => void }[] = [];
  let begun = 0;
  const sampler = new Sampler(undefined as never, clock, logger, () => {
    begun += 1;
    return new Promise((end, fail) => running.push({ end, fail }));
  });
  return {
    ...{ clock, sampler },
    count: () => begun,
    async finish(how: number | Error): Promise<void> {
      const one = running.shift()!;
      if (how instanceof Error) one.fail(how);
      else one.end(how);
      await sampler.settled();
    },
  };
}

it("calls at once, and again when the next step begins, without keeping the process alive", async () => {
  const { clock, sampler, count, finish } = calls();
  expect(count()).toBe(0);
  sampler.start();
  sampler.start();
  expect(count()).toBe(1);
  await finish(4_000);
  sampler.start();
  expect([count(), clock.timers, clock.keepsAlive]).toEqual([1, 1, false]);
  clock.advance(3_999);
  expect(count()).toBe(1);
  clock.advance(1);
  expect(count()).toBe(2);
  await finish(15_000);
  clock.advance(15_000);
  expect(count()).toBe(3);
});

it("waits a moment where the step is about to begin", async () => {
  const { clock, sampler, count, finish } = calls();
  sampler.start();
  await finish(0);
  clock.advance(99);
  expect(count()).toBe(1);
  clock.advance(1);
  expect(count()).toBe(2);
});

it("goes on after a failure, which is logged once until a call succeeds", async () => {
  const logged: unknown[] = [];
  const { clock, sampler, count, finish } = calls({
    ...silentLogger,
    warn: (...given: unknown[]) => void logged.push(given),
  });
  sampler.start();
  for (let nth = 1; nth <= 3; nth += 1) {
    await finish(new Error("Postgres is away"));
    clock.advance(15_000);
    expect(count()).toBe(nth + 1);
  }
  expect(logged).toEqual([[expect.anything(), "no sample was taken for charts: Postgres is away"]]);
  await finish(1_000);
  clock.advance(1_000);
  await finish(new Error("Postgres is away"));
  expect(logged).toHaveLength(2);
});

it("ends with the call that is under way", async () => {
  const { clock, sampler, count, finish } = calls();
  sampler.start();
  const closed = sampler.close();
  await finish(1_000);
  await closed;
  sampler.start();
  expect([count(), clock.timers]).toEqual([1, 0]);
});
