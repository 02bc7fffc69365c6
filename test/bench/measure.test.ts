import { describe, expect, it } from "vitest";
import { type Contender, measureSideBySide, median, orderOf, ratioOf, summarize } from "../../bench/measure.js";

/** A way that does so much a second, on a clock of its own. */
function contender(name: string, rate: number, log: string[] = []): Contender & { readonly seconds: number[] } {
  const seconds: number[] = [];
  return {
    name,
    seconds,
    async run(amount) {
      log.push(name);
      seconds.push(amount / rate);
      return amount / rate;
    },
  };
}

const { signal } = new AbortController();

describe("measuring side by side", () => {
  it("gives each contender's rate for each round", async () => {
    const rates = await measureSideBySide([contender("slow", 1000), contender("fast", 1_000_000)], {
      rounds: 5,
      secondsPerRun: 0.3,
      firstAmount: 100,
      signal,
    });
    expect([...rates.keys()]).toEqual(["slow", "fast"]);
    for (const rate of rates.get("slow")!) expect(rate).toBeCloseTo(1000);
    for (const rate of rates.get("fast")!) expect(rate).toBeCloseTo(1_000_000);
    expect(rates.get("fast")).toHaveLength(5);
  });

  it("gives each as much work as fills a run, whatever its speed", async () => {
    const contenders = [contender("slow", 10), contender("fast", 1_000_000)];
    await measureSideBySide(contenders, { rounds: 3, secondsPerRun: 0.5, firstAmount: 1000, signal });
    for (const { seconds } of contenders) for (const run of seconds.slice(-3)) expect(run).toBeCloseTo(0.5);
  });

  it("warms up each before the first round, and then takes turns", async () => {
    const log: string[] = [];
    const contenders = ["a", "b", "c"].map((name) => contender(name, 1000, log));
    await measureSideBySide(contenders, { rounds: 2, secondsPerRun: 0.1, firstAmount: 100, signal });
    expect(log.slice(-6)).toEqual(["a", "b", "c", "a", "c", "b"]);
    expect(log.slice(0, -6).join("")).toMatch(/^a{2,}b{2,}c{2,}$/);
  });

  it("stops between two runs when it is told to", async () => {
    const stop = new AbortController();
    const log: string[] = [];
    const stopping = contender("b", 1000, log);
    const contenders: Contender[] = [
      contender("a", 1000, log),
      {
        name: "b",
        run: (amount) => {
          if (log.filter((name) => name === "b").length === 5) stop.abort("enough");
          return stopping.run(amount);
        },
      },
      contender("c", 1000, log),
    ];
    const measuring = measureSideBySide(contenders, {
      rounds: 9,
      secondsPerRun: 0.1,
      firstAmount: 100,
      signal: stop.signal,
    });
    await expect(measuring).rejects.toBe("enough");
    expect(log.filter((name) => name === "b")).toHaveLength(6);
    expect(log.at(-1)).toBe("b");
  });

  it("lets nobody always follow the same one", () => {
    const rounds = [0, 1, 2, 3].map((round) => orderOf(["a", "b", "c", "d"], round).join(""));
    expect(rounds).toEqual(["abcd", "adcb", "cdab", "cbad"]);
  });
});

describe("a series", () => {
  it("has its median in the middle, of numbers as numbers, and stays as it was", () => {
    const values = [10, 9, 100];
    expect([median(values), median([7]), median([4, 1, 2, 100])]).toEqual([10, 7, 3]);
    expect(values).toEqual([10, 9, 100]);
  });

  it("is summarized by its middle and how far it reaches; without a run it is none", () => {
    expect(summarize([3, 1, 2])).toEqual({ median: 2, min: 1, max: 3 });
    expect(() => summarize([])).toThrow(RangeError);
  });

  it("has a ratio above 1 where we are better, for a throughput and for a latency", () => {
    expect([ratioOf(300, 100, "higher"), ratioOf(50, 100, "lower"), ratioOf(100, 50, "lower")]).toEqual([3, 2, 0.5]);
  });
});
