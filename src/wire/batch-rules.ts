/**
 * The rules of a batch that lie between its fields, which the spec says in words: a rule on a single field is checked by
 * the generated validators.
 */
import type { Batch } from "./types.js";

/**
 * What is wrong with a batch, or undefined:
 * - it has at least one payload;
 * - at-least-once numbers begin at 1 or above and end at 2^53 − 1 or below; at-most-once has 0;
 * - compressions and headers name payloads of the batch, in ascending order, each once.
 */
export function faultOfBatch(batch: Batch): string | undefined {
  const count = batch.payloads.length;
  if (count === 0) return "a Batch has no payload";
  if (batch.delivery === "at-most-once") {
    if (batch.firstNumber !== 0) return `an at-most-once Batch has first_number ${batch.firstNumber}; it must be 0`;
  } else if (batch.firstNumber === 0) {
    return "an at-least-once Batch has first_number 0; numbers begin at 1";
  } else if (batch.firstNumber > Number.MAX_SAFE_INTEGER - count + 1) {
    return `a Batch of ${count} messages from ${batch.firstNumber} leaves the range of numbers, 2^53 − 1`;
  }
  return faultOfIndexes(batch.compressions, count, "compressions") ?? faultOfIndexes(batch.headers, count, "headers");
}

function faultOfIndexes(
  entries: readonly { readonly index: number }[] | undefined,
  count: number,
  field: string,
): string | undefined {
  if (entries === undefined) return undefined;
  let previous = -1;
  for (const { index } of entries) {
    if (index <= previous) return `Batch.${field} names index ${index} after ${previous}; indexes must ascend`;
    if (index >= count) return `Batch.${field} names index ${index} of ${count} payloads`;
    previous = index;
  }
  return undefined;
}
