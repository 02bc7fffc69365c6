/**
 * Compares a ledger of calls with the published messages.
 */
import type { LedgerLane } from "./bridge-ledger.js";

/** A call that was committed. */
export interface LedgerRow {
  readonly lane: string;
  readonly id: number;
  readonly who: string;
  readonly process: string;
  readonly epoch: string;
  readonly xid: string;
  /** `xmin:xmax:those between that had not ended`. */
  readonly snapshot: string;
}

/** Findings of the audit of a ledger. */
export interface LedgerFindings {
  /** Numbers that are nowhere in a lane though they are for it, as `lane number`. */
  readonly missing: readonly string[];
  /** The same, each number once. */
  readonly missingIds: ReadonlySet<number>;
  /** Transactions that did not see one of an earlier epoch as ended, and epochs of two processes: must be empty. */
  readonly interleaved: readonly string[];
  /** Messages that were run for the first time after a later one of their lane: must be empty. */
  readonly disordered: readonly string[];
  /** Calls as somebody else, and of what is not for the lane: must be empty. */
  readonly wrong: readonly string[];
  /** Calls, and how many of them repeat one that was committed before. */
  readonly calls: number;
  readonly repeated: number;
  readonly epochs: number;
  readonly summary: string;
}

/** The part of the findings that must be as in `nothingWrong`. At most a few of each, so that a failure stays readable. */
export function faultsOf({ missing, interleaved, disordered, wrong }: LedgerFindings) {
  const few = (found: readonly string[]): string[] => found.slice(0, 5);
  return { missing: few(missing), interleaved: few(interleaved), disordered: few(disordered), wrong: few(wrong) };
}

export const nothingWrong: ReturnType<typeof faultsOf> = { missing: [], interleaved: [], disordered: [], wrong: [] };

/** @param rows in the order in which they were written @param last the last number that was published */
export function lookAt(rows: readonly LedgerRow[], lanes: readonly LedgerLane[], last: number): LedgerFindings {
  const byName = new Map(lanes.map((lane) => [lane.name, lane]));
  const seen = new Map(lanes.map(({ name }) => [name, new Set<number>()]));
  const highest = new Map<string, number>();
  const wrong: string[] = [];
  const disordered: string[] = [];
  for (const { lane: name, id, who, process } of rows) {
    const lane = byName.get(name)!;
    if (who !== lane.role || process === "" || id > last || !isFor(lane, id)) wrong.push(`${name} ${id} as ${who}`);
    const ids = seen.get(name)!;
    if (ids.has(id)) continue;
    ids.add(id);
    const before = highest.get(name) ?? 0;
    if (id < before) disordered.push(`${name}: ${id} after ${before}`);
    highest.set(name, Math.max(before, id));
  }
  const missing: string[] = [];
  const missingIds = new Set<number>();
  for (const lane of lanes) {
    const ids = seen.get(lane.name)!;
    for (let id = 1; id <= last; id++) {
      if (!isFor(lane, id) || ids.has(id)) continue;
      missing.push(`${lane.name} ${id}`);
      missingIds.add(id);
    }
  }
  const distinct = [...seen.values()].reduce((sum, ids) => sum + ids.size, 0);
  const repeated = rows.length - distinct;
  const epochs = new Set(rows.map(({ epoch }) => epoch)).size;
  return {
    ...{ missing, missingIds, disordered, wrong, repeated, epochs },
    interleaved: interleavedOf(rows),
    calls: rows.length,
    summary:
      `${last} messages, ${rows.length} calls in ${lanes.length} lanes under ${epochs} epochs, ` +
      `${missing.length} missing, ${repeated} repeated`,
  };
}

function isFor({ remainder }: LedgerLane, id: number): boolean {
  return remainder === undefined || id % 3 === remainder;
}

/** Finds epochs in which two processes have led, by the logs: rows may name a process that saved a message for the leader. */
export function epochsOfTwo(terms: Iterable<{ readonly epoch: string; readonly owner: string }>): string[] {
  const owners = new Map<string, string>();
  const found: string[] = [];
  for (const { epoch, owner } of terms) {
    const first = owners.get(epoch) ?? owner;
    owners.set(epoch, first);
    if (first !== owner) found.push(`epoch ${epoch} is of ${first} and ${owner}`);
  }
  return found;
}

/**
 * Finds transactions whose snapshot does not include all those of earlier epochs. Unlike the order of rows, or clocks, a
 * snapshot proves that the commits of two leaders did not interleave.
 */
function interleavedOf(rows: readonly LedgerRow[]): string[] {
  const found: string[] = [];
  const terms = new Map<string, { readonly batches: Map<string, string> }>();
  for (const { epoch, xid, snapshot } of rows) {
    const term = terms.get(epoch) ?? { batches: new Map() };
    terms.set(epoch, term);
    // The first call of a transaction saw the least.
    if (!term.batches.has(xid)) term.batches.set(xid, snapshot);
  }
  const earlier: bigint[] = [];
  for (const epoch of [...terms.keys()].sort((one, other) => (BigInt(one) < BigInt(other) ? -1 : 1))) {
    const { batches } = terms.get(epoch)!;
    let newest = 0n;
    for (const xid of earlier) if (xid > newest) newest = xid;
    for (const [xid, snapshot] of batches) {
      const [xmin, xmax, between = ""] = snapshot.split(":");
      if (newest < BigInt(xmin!)) continue;
      const open = new Set(between.split(","));
      const late = earlier.filter((other) => other >= BigInt(xmax!) || open.has(`${other}`));
      for (const other of late) found.push(`transaction ${xid} of epoch ${epoch} did not see the end of ${other}`);
    }
    for (const xid of batches.keys()) earlier.push(BigInt(xid));
  }
  return found;
}
