import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { oncePerTurn, ProblemLog, Repeated, shared, silentLogger } from "../../src/foundation/runtime/index.js";

describe("shared work", () => {
  it("runs once for all callers before its start, and once more for callers during the run", async () => {
    const ends: (() => void)[] = [];
    const ask = shared(() => new Promise<number>((resolve) => ends.push(() => resolve(ends.length))));
    const first = [ask(), ask()];
    await vi.waitFor(() => expect(ends).toHaveLength(1));
    const second = [ask(), ask()];
    ends[0]?.();
    expect(await Promise.all(first)).toEqual([1, 1]);
    await vi.waitFor(() => expect(ends).toHaveLength(2));
    ends[1]?.();
    expect(await Promise.all(second)).toEqual([2, 2]);
  });

  it("runs again after a failure, which rejects only the callers of that run", async () => {
    let runs = 0;
    const ask = shared(async () => {
      runs += 1;
      if (runs === 1) throw new Error("the first run");
      return runs;
    });
    await expect(ask()).rejects.toThrow("the first run");
    expect(await ask()).toBe(2);
  });
});

it("work once per turn runs once for all calls of a turn, and again for a call while it runs", async () => {
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  let runs = 0;
  const soon = oncePerTurn(() => {
    runs += 1;
    if (runs === 1) soon();
  });
  soon();
  soon();
  expect(runs).toBe(0);
  await turn();
  expect(runs).toBe(1);
  await turn();
  await turn();
  expect(runs).toBe(2);
});

describe("repeated work", () => {
  let ends: (() => void)[];
  let begun: number;
  const work = () => {
    begun += 1;
    return new Promise<void>((resolve) => ends.push(resolve));
  };
  /** Ends the run that is under way. */
  const end = async () => {
    ends.shift()?.();
    await vi.advanceTimersByTimeAsync(0);
  };
  beforeEach(() => {
    vi.useFakeTimers();
    ends = [];
    begun = 0;
  });
  afterEach(() => vi.useRealTimers());

  it("runs one at a time, with a pause after each run", async () => {
    const repeated = new Repeated(100, work);
    const [one, other] = [repeated.run(), repeated.run()];
    expect(one).toBe(other);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(begun).toBe(1);
    await end();
    await vi.advanceTimersByTimeAsync(99);
    expect([begun, repeated.isRunning]).toEqual([1, false]);
    await vi.advanceTimersByTimeAsync(1);
    expect([begun, repeated.isRunning]).toEqual([2, true]);
  });

  it("runs once more after changes during a run", async () => {
    const repeated = new Repeated(100, work);
    repeated.soon();
    for (let count = 0; count < 3; count++) repeated.soon();
    await end();
    expect(begun).toBe(2);
    await end();
    expect([begun, repeated.isRunning]).toEqual([2, false]);
  });

  it("resolves fresh() when a run has ended that started after the call", async () => {
    const repeated = new Repeated(100, work);
    void repeated.run();
    let isFresh = false;
    void repeated.fresh().then(() => {
      isFresh = true;
    });
    await end();
    expect([begun, isFresh]).toEqual([2, false]);
    await end();
    expect(isFresh).toBe(true);
  });

  it("starts no run after stop, and ends with its current run", async () => {
    const repeated = new Repeated(100, work);
    repeated.soon();
    repeated.soon();
    repeated.stop();
    let hasEnded = false;
    void repeated.ended().then(() => {
      hasEnded = true;
    });
    await vi.advanceTimersByTimeAsync(0);
    expect(hasEnded).toBe(false);
    await end();
    await vi.advanceTimersByTimeAsync(1_000);
    expect([begun, hasEnded, repeated.isStopped]).toEqual([1, true, true]);
  });
});

it("a problem is logged as a warning when it differs from the previous one", () => {
  const lines: string[] = [];
  const log = new ProblemLog({
    ...silentLogger,
    warn: (details) => lines.push(`warn ${JSON.stringify(details)}`),
    debug: (details) => lines.push(`debug ${JSON.stringify(details)}`),
  });
  for (const problem of ["a", "a", "b"]) log.tell(problem, "cannot be read", { code: 1 });
  log.clear();
  log.tell("b", "cannot be read");
  expect(lines).toEqual([
    'warn {"problem":"a","code":1}',
    'debug {"problem":"a","code":1}',
    'warn {"problem":"b","code":1}',
    'warn {"problem":"b"}',
  ]);
});
