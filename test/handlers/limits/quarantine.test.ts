import { describe, expect, it } from "vitest";
import { Quarantine } from "../../../src/jobs-and-peers/handlers/limits/quarantine.js";

/** An isolation whose handlers and timers the test moves. */
function bench() {
  const log: string[] = [];
  const running = new Set<string>();
  const timers = new Map<() => void, number>();
  const quarantine = new Quarantine<string>(1_000, {
    after: (delayMs, callback) => {
      timers.set(callback, delayMs);
      return () => timers.delete(callback);
    },
    changed: () => log.push(`holder ${quarantine.holder ?? "none"}`),
    othersIdle: (holder) => [...running].every((channel) => channel === holder),
  });
  return {
    quarantine,
    running,
    log,
    enter: (channel: string) => quarantine.enter(channel, () => log.push(`${channel} begins`)),
    expire: () => {
      for (const callback of [...timers.keys()]) callback();
    },
    timers: () => timers.size,
  };
}

describe("isolation", () => {
  it("waits until the handlers of other channels end, and blocks new ones", () => {
    const { quarantine, running, log, enter } = bench();
    running.add("b");
    enter("a");
    expect(log).toEqual(["holder a"]);
    expect([quarantine.blocks("a"), quarantine.blocks("b")]).toEqual([false, true]);
    quarantine.handlerEnded();
    running.delete("b");
    quarantine.handlerEnded();
    quarantine.handlerEnded();
    expect(log).toEqual(["holder a", "a begins"]);
  });

  it("isolates one channel after another, and unblocks all after the last", () => {
    const { quarantine, log, enter, timers } = bench();
    enter("a");
    enter("b");
    enter("a");
    quarantine.leave("a");
    quarantine.leave("b");
    expect(log).toEqual(["holder a", "a begins", "a begins", "holder b", "b begins", "holder none"]);
    expect(timers()).toBe(0);
  });

  it("ends an isolation at its time limit, started or not", () => {
    const { quarantine, running, log, enter, expire } = bench();
    running.add("c");
    enter("a");
    expire();
    expect(log).toEqual(["holder a", "holder none", "a begins"]);
    expect(quarantine.blocks("b")).toBe(false);
  });

  it("removes a waiting channel that closes, and ignores other channels", () => {
    const { quarantine, log, enter } = bench();
    enter("a");
    enter("b");
    quarantine.leave("b");
    quarantine.leave("c");
    quarantine.leave("a");
    expect(log).toEqual(["holder a", "a begins", "b begins", "holder none"]);
  });
});
