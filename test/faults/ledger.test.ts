/**
 * Findings of the audit: a fault test can only detect what the audit detects.
 */
import { describe, expect, it } from "vitest";
import { audit, problems, problemsBesideRepeats, type Sent } from "./support/ledger.js";
import { epochsOfTwo, interleaved } from "./support/terms.js";

const sent: readonly Sent[] = [
  { id: "1", consumers: ["all"], lane: "k" },
  { id: "2", consumers: ["all", "third"], lane: "k" },
  { id: "3", consumers: ["all"], lane: "k" },
];
const done = (...ids: readonly string[]) => ids.map((id) => ({ consumer: "all", id }));
const third = { consumer: "third", id: "2" };

describe("the audit of a ledger", () => {
  it("finds nothing where there is nothing", () => {
    expect(problems(audit(sent, [...done("1", "2", "3"), third]))).toEqual([]);
  });

  it("finds what is missing at one consumer, though another has it", () => {
    expect(audit(sent, done("1", "2", "3")).lost).toEqual(["third: 2"]);
  });

  it("finds what is repeated, which may come late, and what was sent again", () => {
    const found = audit([...sent, sent[0]!], [...done("1", "2", "3", "1"), third]);
    expect(found).toMatchObject({ twice: ["sent: 1", "all: 1"], late: [] });
    expect(problemsBesideRepeats(found)).toEqual([]);
  });

  it("finds what has its first effect behind a later message of its lane, and of no other", () => {
    expect(audit(sent, [...done("1", "3", "2"), third]).late).toEqual(["all: 2 behind 3"]);
    const others = [{ id: "4", consumers: ["all"], lane: "l" }, { id: "5", consumers: ["all"] }, ...sent];
    expect(audit(others, [...done("1", "2", "3", "5", "4"), third]).late).toEqual([]);
  });

  it.each<[string, readonly Sent[], { consumer: string; id: string; at?: number }]>([
    ["what was not sent", sent, { consumer: "all", id: "4" }],
    ["what is for others", sent, { consumer: "third", id: "1" }],
    ["what was withdrawn", [{ ...sent[0]!, outcome: "withdrawn" }], { consumer: "all", id: "1" }],
    ["what is not due", [{ ...sent[0]!, due: 10 }], { consumer: "all", id: "1", at: 9 }],
  ])("finds effects of %s", (_, messages, effect) => {
    expect(audit(messages, [effect]).stray).toHaveLength(1);
  });

  it("takes a message of unknown outcome with its effect, and without", () => {
    const unknown: Sent = { ...sent[0]!, outcome: "unknown" };
    expect(problems(audit([unknown], []))).toEqual([]);
    expect(problems(audit([unknown], done("1")))).toEqual([]);
  });

  it("is told with the first few of each kind", () => {
    expect(problems(audit(sent, [{ consumer: "all", id: "x" }]))).toEqual([
      "4 lost: all: 1; all: 2; third: 2; all: 3",
      "1 stray: all: x",
    ]);
  });
});

describe("the audit of leaders", () => {
  const first = { epoch: "1", xid: "700", snapshot: "700:701:" };

  it.each([
    ["that had not ended", "700:703:700", 1],
    ["that began later", "700:700:", 1],
    ["that had ended, beside others that had not", "699:703:699,701", 0],
  ])("looks for transactions of a new leader beside one of the last leader %s", (_, snapshot, count) => {
    const found = interleaved([first, { epoch: "2", xid: "702", snapshot }]);
    expect(found).toEqual(Array(count).fill("transaction 702 of epoch 2 did not see the end of 700"));
  });

  it("finds an epoch of two processes", () => {
    const terms = [
      { epoch: "1", owner: "p" },
      { epoch: "2", owner: "q" },
    ];
    expect(epochsOfTwo(terms)).toEqual([]);
    expect(epochsOfTwo([...terms, { epoch: "1", owner: "q" }])).toEqual(["epoch 1 is of p and q"]);
  });
});
