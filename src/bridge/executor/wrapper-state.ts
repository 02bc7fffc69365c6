/**
 * Whether an error of a call is about the wrapper, as the catalogs have it: the words of an error can be the function's own.
 */
import type { Logger } from "../../runtime/index.js";
import type { ExecutorPool } from "./executor-pool.js";
import { type Ending, inTransaction } from "./transaction.js";
import { mayBeAboutWrapper, type WrapperLook, wrapperLook } from "./wrapper-call.js";

/** Looks at the wrapper again if an ending may be about it. Does not reject. @returns true if it cannot be called as it is now */
export async function isAboutWrapper(
  ending: Ending<unknown>,
  { wrapper, pool, timeoutMs, logger }: AskedWrapper,
): Promise<boolean> {
  if (ending.kind !== "failed" || !mayBeAboutWrapper(ending)) return false;
  const now = await inTransaction<WrapperLook | undefined, WrapperLook>(pool, logger, {
    runAs: wrapper.runAs,
    timeoutMs,
    first: `SELECT ${wrapperLook(wrapper)}`,
    run: async (_session, [look]) => ({ value: look, commit: false }),
  });
  return now.kind === "given_up" && (now.value?.version == null || !now.value.mayCall);
}

/** A wrapper, and where it is looked at. */
export interface AskedWrapper {
  readonly wrapper: { readonly wrapper: string; readonly runAs: string };
  readonly pool: ExecutorPool;
  readonly timeoutMs: number;
  readonly logger: Logger;
}
