/**
 * Batches single lookups into few statements.
 *
 * A lookup made while no statement runs is sent at the end of the current turn of the event loop. Lookups made while a
 * statement runs wait for its answer and then share one statement. So a single lookup does not wait, and thousands of
 * lookups are a few statements.
 */
import { sqlstateOf } from "../../foundation/postgres/index.js";

/** SQLSTATEs of a refused value: data exceptions and violated constraints. */
const refusedValue = /^2[23]/;

/**
 * Maximum number of keys of one statement. What several writes change in one transaction, as a counter's row, takes longer with each
 * of them.
 */
const mostKeys = 500;

/**
 * Returns a function that looks up one key and batches concurrent calls.
 *
 * @param lookUpAll looks up many keys. Its results are in the order of the keys. If Postgres refuses a value, each key is
 * looked up by itself, so that the refusal rejects that key alone; other errors reject all of them
 */
export function batched<Key, Answer>(
  lookUpAll: (keys: readonly Key[]) => Promise<readonly Answer[]>,
): (key: Key) => Promise<Answer> {
  const waiting: { key: Key; resolve: (answer: Answer) => void; reject: (error: unknown) => void }[] = [];
  let isBusy = false;
  const sendBatch = async (): Promise<void> => {
    const batch = waiting.splice(0, mostKeys);
    try {
      const answers = await lookUpAll(batch.map(({ key }) => key));
      for (const [index, { resolve }] of batch.entries()) resolve(answers[index] as Answer);
    } catch (error) {
      if (batch.length === 1 || !refusedValue.test(sqlstateOf(error) ?? ""))
        for (const { reject } of batch) reject(error);
      else
        for (const { key, resolve, reject } of batch)
          await lookUpAll([key]).then(([answer]) => resolve(answer!), reject);
    }
  };
  const run = async (): Promise<void> => {
    // Lets all callers of this event-loop turn join the batch, even if they wait for a few promises first.
    await new Promise(setImmediate);
    while (waiting.length > 0) await sendBatch();
    isBusy = false;
  };
  return (key) =>
    new Promise((resolve, reject) => {
      waiting.push({ key, resolve, reject });
      if (isBusy) return;
      isBusy = true;
      void run();
    });
}
