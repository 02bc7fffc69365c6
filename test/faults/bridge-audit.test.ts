/**
 * Findings of the ledger's audit: a fault test can only detect what the audit detects.
 */
import { describe, expect, it } from "vitest";
import { epochsOfTwo, type LedgerRow, lookAt } from "./support/bridge-audit.js";

const lanes = [
  { name: "all", subject: "a.>", remainder: undefined, role: "one" },
  { name: "third", subject: "a.c", remainder: 2, role: "two" },
];

function row(id: number, more: Partial<LedgerRow> = {}): LedgerRow {
  return { lane: "all", id, who: "one", process: "p", epoch: "1", xid: "700", snapshot: "700:701:", ...more };
}

const two = row(2, { lane: "third", who: "two" });
const complete = [row(1), two, row(2), row(3)];

describe("the audit of a ledger", () => {
  it("finds nothing where there is nothing", () => {
    expect(lookAt(complete, lanes, 3)).toMatchObject({ missing: [], interleaved: [], disordered: [], wrong: [] });
  });

  it("finds what is missing in one subscription, though another has it", () => {
    const { missing, missingIds } = lookAt([row(1), row(2), row(3)], lanes, 3);
    expect(missing).toEqual(["third 2"]);
    expect([...missingIds]).toEqual([2]);
  });

  it("counts what is repeated, which may come late", () => {
    expect(lookAt([...complete, row(1), two], lanes, 3)).toMatchObject({ repeated: 2, disordered: [] });
  });

  it("finds what is run for the first time after a later one", () => {
    expect(lookAt([row(1), two, row(3), row(2)], lanes, 3).disordered).toEqual(["all: 2 after 3"]);
  });

  it("finds calls as another role, and of what was not published for the subscription", () => {
    const wrong = [row(1, { who: "two" }), row(4), row(1, { lane: "third", who: "two" })];
    expect(lookAt([...complete, ...wrong], lanes, 3).wrong).toHaveLength(3);
  });

  it.each([
    { what: "that had not ended", snapshot: "700:703:700" },
    { what: "that began later", snapshot: "700:700:" },
  ])("finds a transaction of a new leader beside one of the last leader $what", ({ snapshot }) => {
    const next = row(3, { epoch: "2", process: "q", xid: "702", snapshot });
    expect(lookAt([row(1), two, row(2), next], lanes, 3).interleaved).toEqual([
      "transaction 702 of epoch 2 did not see the end of 700",
    ]);
  });

  it("takes other transactions that had not ended for what they are", () => {
    const next = row(3, { epoch: "2", process: "q", xid: "702", snapshot: "699:703:699,701" });
    expect(lookAt([row(1), two, row(2), next], lanes, 3).interleaved).toEqual([]);
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
