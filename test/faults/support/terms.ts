/**
 * Terms of leaders: nothing of two of them may have been committed in turns.
 */

/** The transaction of an effect, in the order of the effects. */
export interface LedTransaction {
  readonly epoch: string;
  readonly xid: string;
  /** `xmin:xmax:those between that had not ended`. */
  readonly snapshot: string;
}

/** Finds epochs in which two processes have led, by the logs: effects may be of a process that saved a message for the leader. */
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
export function interleaved(transactions: readonly LedTransaction[]): string[] {
  const found: string[] = [];
  const terms = new Map<string, Map<string, string>>();
  for (const { epoch, xid, snapshot } of transactions) {
    const batches = terms.get(epoch) ?? new Map<string, string>();
    terms.set(epoch, batches);
    // The first effect of a transaction saw the least.
    if (!batches.has(xid)) batches.set(xid, snapshot);
  }
  const earlier: bigint[] = [];
  for (const epoch of [...terms.keys()].sort((one, other) => (BigInt(one) < BigInt(other) ? -1 : 1))) {
    const batches = terms.get(epoch)!;
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
