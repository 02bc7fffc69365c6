/**
 * Patience that ends: a wait for answers that is given up for now, while the answers may still come.
 */

/**
 * What the first of them that settles resolves to; undefined if none does within `ms`. The others are left alone, so
 * whoever made them must have taken care of their rejections.
 *
 * @throws what that first one rejects with
 */
export async function within<T>(ms: number, answers: readonly Promise<T>[]): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const silence = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, ms, undefined);
  });
  try {
    return await Promise.race([...answers, silence]);
  } finally {
    clearTimeout(timer);
  }
}

/** The same promise, whose rejection does not count as unhandled while nobody waits for it. */
export function handled<T>(answer: Promise<T>): Promise<T> {
  answer.catch(() => undefined);
  return answer;
}
