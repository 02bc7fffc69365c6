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
  it("waits until the handlers of other channels end, and blocks new ones", () => {
    const { isolation, running, log, enter } = bench();
    running.add("b");
    enter("a");
    expect(log).toEqual(["holder a"]);
    expect([isolation.blocks("a"), isolation.blocks("b")]).toEqual([false, true]);
    isolation.handlerEnded();
    running.delete("b");
    isolation.handlerEnded();
    isolation.handlerEnded();
    expect(log).toEqual(["holder a", "a begins"]);
  });

  it("isolates one channel after another, and unblocks all after the last", () => {
    const { isolation, log, enter, timers } = bench();
    enter("a");
    enter("b");
    enter("a");
    isolation.leave("a");
    isolation.leave("b");
    expect(log).toEqual(["holder a", "a begins", "a begins", "holder b", "b begins", "holder none"]);
    expect(timers()).toBe(0);
  });

  it("ends an isolation at its time limit, started or not", () => {
    const { isolation, running, log, enter, expire } = bench();
    running.add("c");
    enter("a");
    expire();
    expect(log).toEqual(["holder a", "holder none", "a begins"]);
    expect(isolation.blocks("b")).toBe(false);
  });

  it("removes a waiting channel that closes, and ignores other channels", () => {
    const { isolation, log, enter } = bench();
    enter("a");
    enter("b");
    isolation.leave("b");
    isolation.leave("c");
    isolation.leave("a");
    expect(log).toEqual(["holder a", "a begins", "b begins", "holder none"]);
  });
});
