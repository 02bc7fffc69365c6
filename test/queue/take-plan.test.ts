import { describe, expect, it } from "vitest";
import { TakePlan } from "../../src/jobs-and-peers/queue/worker/take-plan.js";
import type { QueuePlace } from "../../src/jobs-and-peers/store/index.js";

const row = (rank: number, role = "shop"): QueuePlace => ({ topic: "t", recipient: "", role, rank: BigInt(rank) });

/** A plan that has taken some messages of topic `t`, of at most ten. */
function having(...rows: QueuePlace[]): TakePlan {
  const plan = new TakePlan();
  answered(plan, rows);
  return plan;
}

function answered(plan: TakePlan, rows: QueuePlace[], { looked = rows, isNotified = true, most = 10 } = {}) {
  for (const topic of [...plan.wanted]) plan.wanted.delete(topic);
  plan.begin(["t"], 0);
  plan.seen(looked);
  return plan.taken({ topics: ["t"], most }, rows, looked, isNotified);
}

describe("the plan of what is taken next", () => {
  it("goes on behind what was seen", () => {
    const plan = having(row(3), row(7));
    expect(plan.begin(["t", "u"], 0)).toEqual({ t: { "": { shop: "7" } }, u: {} });
  });

  it("knows where it was with names that every object has", () => {
    const names = ["constructor", "__proto__", "toString"];
    const plan = new TakePlan();
    const rows = names.map((name, at) => ({ ...row(at + 1, name), topic: name, recipient: `@${name}` }));
    plan.seen(rows);
    plan.seen([{ ...rows[0]!, recipient: "__proto__", rank: 7n }]);
    expect(JSON.parse(JSON.stringify(plan.begin(names, 0)))).toEqual(
      JSON.parse(`{
        "constructor": { "@constructor": { "constructor": "1" }, "__proto__": { "constructor": "7" } },
        "__proto__": { "@__proto__": { "__proto__": "2" } },
        "toString": { "@toString": { "toString": "3" } }
      }`),
    );
  });

  it("looks at all messages after a notification that found nothing in front, and then goes on where it was", () => {
    const plan = having(row(7));
    plan.wants("t", true);
    expect(answered(plan, [])).toEqual({ found: "all", hasPassed: false });
    expect([...plan.wanted]).toEqual(["t"]);
    expect(plan.begin(["t"], 0)).toEqual({ t: {} });
    plan.seen([row(5)]);
    expect(plan.taken({ topics: ["t"], most: 10 }, [row(5)], [row(5)], true)).toEqual({
      found: "all",
      hasPassed: false,
    });
    expect(plan.begin(["t"], 0)).toEqual({ t: { "": { shop: "7" } } });
  });

  it("looks at all messages if two notifications come before it looks: the lower id may have committed last", () => {
    const plan = having(row(7));
    plan.wants("t", true);
    plan.wants("t", true);
    expect(plan.begin(["t"], 0)).toEqual({ t: {} });
  });

  it("looks at all messages of a topic with a backlog once a second, and four times if something asks for it", () => {
    const plan = new TakePlan();
    answered(plan, [row(1), row(2)], { most: 2 });
    const front = { t: { "": { shop: "2" } } };
    expect(plan.begin(["t"], 999)).toEqual(front);
    expect(plan.begin(["t"], 1_000)).toEqual({ t: {} });
    plan.seen([row(2)]);
    plan.wantsAll("t");
    expect([plan.begin(["t"], 1_249), plan.begin(["t"], 1_250)]).toEqual([front, { t: {} }]);
  });

  it("looks at all messages of a backlog for a tenth of its time at most", () => {
    const plan = new TakePlan();
    const rows = [row(1), row(2)];
    answered(plan, rows, { most: 2 });
    const isWhole = (now: number) => Object.keys(plan.begin(["t"], now)["t"]!).length === 0;
    const takenAt = (now: number) => {
      plan.seen(rows);
      plan.taken({ topics: ["t"], most: 2 }, rows, rows, true, new Map(), now);
    };
    expect(isWhole(1_000)).toBe(true);
    takenAt(1_300);
    expect(isWhole(3_999)).toBe(false);
    // What takes long that is no look at all messages does not count.
    takenAt(20_000);
    plan.wantsAll("t");
    expect(isWhole(20_000)).toBe(true);
    takenAt(30_000);
    expect([isWhole(49_999), isWhole(50_000)]).toEqual([false, true]);
  });

  it("looks at all messages once after a backlog, and not with each notification during it", () => {
    const plan = new TakePlan();
    answered(plan, [row(1), row(2)], { most: 2 });
    plan.wants("t", true);
    plan.wants("t", true);
    plan.wantsAll("t");
    expect(plan.begin(["t"], 0)).toEqual({ t: { "": { shop: "2" } } });
    plan.seen([row(5)]);
    expect(plan.taken({ topics: ["t"], most: 10 }, [row(5)], [row(5)], true).found).toBe("all");
    expect([...plan.wanted]).toEqual(["t"]);
    expect(plan.begin(["t"], 0)).toEqual({ t: {} });
    plan.wanted.delete("t");
    plan.taken({ topics: ["t"], most: 10 }, [], [], true);
    expect(plan.begin(["t"], 0)).toEqual({ t: { "": { shop: "5" } } });
  });

  it("takes more if it got as much as it asked for, or one of two roles may have had more than its part", () => {
    expect(answered(new TakePlan(), [row(1), row(2)], { most: 2 })).toMatchObject({ found: "more" });
    const plan = having(row(1), row(2, "web"));
    const six = [3, 4, 5, 6, 7, 8].map((id) => row(id));
    expect(answered(plan, six)).toMatchObject({ found: "more" });
    expect(answered(having(row(1)), six)).toMatchObject({ found: "all" });
  });

  it("asks for a topic with limits alone, and again when more may start", () => {
    const plan = having(row(1));
    plan.wants("t", true);
    // It was asked for with another one, which has no limits.
    plan.taken({ topics: ["t", "u"], most: 10 }, [], [], true, new Map([["t", 0]]), 1_000);
    expect([plan.isLimited("t"), plan.isLimited("u"), plan.isWaiting("t", 1_000)]).toEqual([true, false, false]);
    expect([...plan.limitedToTake(1_000)]).toEqual(["t"]);
    const taken = plan.taken({ topics: ["t"], most: 10 }, [row(2)], [row(2)], true, new Map([["t", 300]]), 1_000);
    expect(taken).toEqual({ found: "more", hasPassed: false });
    expect([plan.isWaiting("t", 1_299), plan.isWaiting("t", 1_300)]).toEqual([true, false]);
    expect([plan.deadline(1_000), plan.deadline(1_300)]).toEqual([1_300, Infinity]);
    expect([...plan.limitedToTake(1_000)]).toEqual([]);
    plan.mayStart("t");
    expect([...plan.limitedToTake(1_000)]).toEqual(["t"]);
    expect(plan.setLimited(["t", "v"])).toEqual(["v"]);
    plan.taken({ topics: ["t"], most: 10 }, [], [], true);
    expect(plan.isLimited("t")).toBe(false);
  });

  it("goes on behind messages that others have, and looks again when a key is free", () => {
    const plan = having(row(1));
    expect(answered(plan, [], { looked: [row(20)] })).toEqual({ found: "passed", hasPassed: false });
    expect([...plan.wanted]).toEqual(["t"]);
    expect(answered(plan, [])).toEqual({ found: "all", hasPassed: true });
    expect([...plan.wanted]).toEqual([]);
    plan.keyFreed("t");
    expect([...plan.wanted]).toEqual(["t"]);
    expect(plan.begin(["t"], 0)).toEqual({ t: {} });
    plan.wanted.delete("t");
    plan.keyFreed("t");
    plan.wantsPassed();
    expect([...plan.wanted]).toEqual([]);
  });
});
