import { describe, expect, it } from "vitest";
import { LengthPrefixedReader } from "../../bench/live/tcp.js";
import { Tally } from "../../bench/live/ways.js";

describe("the tally of a run", () => {
  it("is complete with the last message that is expected", async () => {
    const tally = new Tally();
    tally.expect(3);
    const arrived = tally.arrived(10_000);
    for (const bytes of [10, 20, 30]) tally.count(bytes);
    expect(await arrived).toEqual({ messages: 3, bytes: 60, completeMs: expect.any(Number) });
    expect(await tally.arrived(10_000)).toEqual(await arrived);
  });

  it("tells how many there are when some are missing", async () => {
    const tally = new Tally();
    tally.expect(3);
    tally.count(10);
    expect(await tally.arrived(1)).toEqual({ messages: 1, bytes: 10, completeMs: undefined });
  });

  it("does not mind what comes before the first run, and refuses the next one after a message too many", () => {
    const tally = new Tally();
    tally.count(5);
    tally.expect(1);
    tally.count(10);
    tally.count(10);
    expect(() => tally.expect(1)).toThrow("2 messages have arrived where 1 were sent");
  });
});

describe("the reader of the baseline tcp", () => {
  it("finds the messages wherever the chunks are cut", () => {
    const stream = Uint8Array.of(0, 0, 0, 2, 1, 2, 0, 0, 0, 1, 3, 0, 0, 0, 0, 0, 0, 0, 3, 4, 5, 6);
    for (let cut = 0; cut <= stream.length; cut++) {
      for (let second = cut; second <= stream.length; second++) {
        const seen: (number[] | "end")[] = [];
        const reader = new LengthPrefixedReader(
          (message) => seen.push([...message]),
          () => seen.push("end"),
        );
        for (const chunk of [stream.slice(0, cut), stream.slice(cut, second), stream.slice(second)]) reader.read(chunk);
        expect(seen).toEqual([[1, 2], [3], "end", [4, 5, 6]]);
      }
    }
  });
});
