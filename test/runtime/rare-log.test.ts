import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { RareLog } from "../../src/foundation/runtime/index.js";
import { logIntervalMs, maxLoggedWords } from "../../src/foundation/runtime/logger.js";

let lines: object[];
let log: RareLog;
beforeEach(() => {
  vi.useFakeTimers();
  lines = [];
  const nothing = () => undefined;
  const warn = (details: object, message: string) => void lines.push({ message, ...details });
  log = new RareLog({ debug: nothing, info: nothing, warn, error: nothing }, "test");
});
afterEach(() => vi.useRealTimers());

describe("words of the server", () => {
  it("are logged at once, and with their count after the interval if they are repeated", () => {
    for (let count = 0; count < 1000; count++) log.warn("refused", "a");
    log.warn("complains", "a");
    const first = { message: "refused", client: "test", words: "a" };
    expect(lines).toEqual([first, { ...first, message: "complains" }]);
    vi.advanceTimersByTime(logIntervalMs);
    expect(lines.slice(2)).toEqual([{ ...first, times: 999 }]);
  });

  it("are logged once per interval while they recur, and at once after an interval without them", () => {
    for (let seconds = 0; seconds < 40; seconds++) {
      log.warn("refused", "a");
      vi.advanceTimersByTime(logIntervalMs / 10);
    }
    expect(lines).toHaveLength(5);
    vi.advanceTimersByTime(logIntervalMs * 2);
    expect(vi.getTimerCount()).toBe(0);
    log.warn("refused", "a");
    expect(lines.at(-1)).toEqual({ message: "refused", client: "test", words: "a" });
  });

  it("are only counted if too many different ones arrive", () => {
    for (let count = 0; count < maxLoggedWords + 50; count++) log.warn("refused", `${count}`);
    expect(lines).toHaveLength(maxLoggedWords);
    vi.advanceTimersByTime(logIntervalMs);
    expect(lines.slice(maxLoggedWords)).toMatchObject([{ times: 50 }]);
  });

  it("are logged with their count at the end", () => {
    for (let count = 0; count < 3; count++) log.warn("refused", "a");
    log.end();
    expect(lines).toMatchObject([{ words: "a" }, { words: "a", times: 2 }]);
    expect(vi.getTimerCount()).toBe(0);
  });
});
