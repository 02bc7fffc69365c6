import { describe, expect, it } from "vitest";
import { Isolation } from "../../src/channel/index.js";

/** An isolation whose handlers and timers the test moves. */
function bench() {
  const log: string[] = [];
  const running = new Set<string>();
  const timers = new Map<() => void, number>();
  const isolation = new Isolation<string>(1_000, {
    after: (delayMs, callback) => {
      timers.set(callback, delayMs);
      return () => timers.delete(callback);
    },
    changed: () => log.push(`holder ${isolation.holder ?? "none"}`),
    othersIdle: (holder) => [...running].every((channel) => channel === holder),
  });
  return {
    isolation,
    running,
    log,
    enter: (channel: string) => isolation.enter(channel, () => log.push(`${channel} begins`)),
    expire: () => {
      for (const callback of [...timers.keys()]) callback();
    },
    timers: () => timers.size,
  };
}

describe("isolation", () => {
  it("waits for the handlers of others, and holds them up", () => {
    const { isolation, running, log, enter } = bench();
    running.add("b");
    enter("a");
    expect(log).toEqual(["holder a"]);
    expect([isolation.holdsUp("a"), isolation.holdsUp("b")]).toEqual([false, true]);
    isolation.handlerEnded();
    running.delete("b");
    isolation.handlerEnded();
    isolation.handlerEnded();
    expect(log).toEqual(["holder a", "a begins"]);
  });

  it("gives one after another its turn, and lets everybody go on behind the last", () => {
    const { isolation, log, enter, timers } = bench();
    enter("a");
    enter("b");
    enter("a");
    isolation.leave("a");
    isolation.leave("b");
    expect(log).toEqual(["holder a", "a begins", "a begins", "holder b", "b begins", "holder none"]);
    expect(timers()).toBe(0);
  });

  it("ends a turn after its limit, begun or not", () => {
    const { isolation, running, log, enter, expire } = bench();
    running.add("c");
    enter("a");
    expire();
    expect(log).toEqual(["holder a", "holder none", "a begins"]);
    expect(isolation.holdsUp("b")).toBe(false);
  });

  it("forgets a channel that is closed while it waits, and ignores one that does neither", () => {
    const { isolation, log, enter } = bench();
    enter("a");
    enter("b");
    isolation.leave("b");
    isolation.leave("c");
    isolation.leave("a");
    expect(log).toEqual(["holder a", "a begins", "b begins", "holder none"]);
  });
});
