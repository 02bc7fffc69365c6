import { beforeEach, describe, expect, it } from "vitest";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { Liveness } from "../../src/jobs-and-peers/transport/liveness.js";
import { ManualClock } from "../support/manual-clock.js";

const { pingAfterMs, pingTimeoutMs } = protocolConstants;

describe("Liveness", () => {
  let clock: ManualClock;
  let liveness: Liveness;
  let events: string[];

  beforeEach(() => {
    clock = new ManualClock();
    events = [];
    liveness = new Liveness(clock, {
      ping: () => events.push(`ping ${clock.now()}`),
      dead: (silentMs) => events.push(`dead after ${silentMs}`),
    });
    liveness.start();
  });

  it("pings after silence, and reports the connection dead without an answer", () => {
    clock.advance(pingAfterMs - 1);
    expect(events).toEqual([]);
    clock.advance(1);
    expect(events).toEqual([`ping ${pingAfterMs}`]);
    clock.advance(pingTimeoutMs - 1);
    expect(events).toHaveLength(1);
    clock.advance(1);
    expect(events).toEqual([`ping ${pingAfterMs}`, `dead after ${pingAfterMs + pingTimeoutMs}`]);
    clock.advance(1_000_000);
    expect(events).toHaveLength(2);
  });

  it("measures silence from the last byte", () => {
    for (let i = 0; i < 10; i++) {
      clock.advance(pingAfterMs - 1);
      liveness.bytesArrived();
    }
    expect(events).toEqual([]);
    clock.advance(pingAfterMs);
    expect(events).toHaveLength(1);
  });

  it("accepts any byte as an answer, and starts again", () => {
    clock.advance(pingAfterMs);
    clock.advance(pingTimeoutMs - 1);
    liveness.bytesArrived();
    clock.advance(pingAfterMs - 1);
    expect(events).toHaveLength(1);
    clock.advance(1);
    expect(events[1]).toBe(`ping ${2 * pingAfterMs + pingTimeoutMs - 1}`);
    clock.advance(pingTimeoutMs);
    expect(events[2]).toBe(`dead after ${pingAfterMs + pingTimeoutMs}`);
  });

  it("keeps pinging while this side does not read, and does not time out", () => {
    liveness.setPaused(true);
    clock.advance(10 * (pingAfterMs + pingTimeoutMs));
    expect(events.length).toBeGreaterThan(10);
    expect(events.every((event) => event.startsWith("ping"))).toBe(true);
  });

  it("starts again when this side resumes reading", () => {
    liveness.setPaused(true);
    clock.advance(pingAfterMs + pingTimeoutMs - 1);
    liveness.setPaused(false);
    events = [];
    clock.advance(pingAfterMs - 1);
    expect(events).toEqual([]);
    clock.advance(1 + pingTimeoutMs);
    expect(events.at(-1)).toMatch(/^dead/);
  });

  it("pings again if this process itself was suspended", () => {
    clock.advance(pingAfterMs);
    clock.stall(pingTimeoutMs + 60_000);
    expect(events.map((event) => event.split(" ")[0])).toEqual(["ping", "ping"]);
    clock.advance(pingTimeoutMs);
    expect(events.at(-1)).toMatch(/^dead/);
  });

  it("is silent once stopped", () => {
    clock.advance(pingAfterMs);
    liveness.stop();
    clock.advance(1_000_000);
    expect(events).toHaveLength(1);
  });
});
