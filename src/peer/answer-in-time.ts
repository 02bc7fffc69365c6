/** How long the caller of a request waits. */
import { PeerError } from "../errors/index.js";
import type { Answer, Asked } from "./link-requests.js";
import { onAbort } from "./outgoing.js";

/**
 * Asks a listener, unless nobody waits for the answer any more: the caller was told that nothing had left.
 *
 * @param mayHaveBegun a listener that was asked before may have handled the request
 */
export type Begin = (ask: () => Asked, mayHaveBegun: boolean) => Asked;

/**
 * Waits for an answer until its time has passed, or the signal is aborted.
 *
 * @param ask begins, each time by what it is given, which throws when nobody waits any more
 * @throws PeerError (as a rejection) `request_timeout`, `aborted`, with outcome `unknown` if the request has left
 */
export function answerInTime(
  timeoutMs: number,
  signal: AbortSignal | undefined,
  ask: (begin: Begin) => Promise<Answer>,
): Promise<Answer> {
  return new Promise<Answer>((resolve, reject) => {
    let asked: Asked | undefined;
    let isOver = false;
    let askedBefore = false;
    const giveUp = (code: "request_timeout" | "aborted", text: string, cause: object): void => {
      const outcome = askedBefore || asked?.isWritten() === true ? ({ outcome: "unknown" } as const) : {};
      end();
      asked?.leave();
      const what = "outcome" in outcome ? "; the request may be handled all the same" : "; it had not left yet";
      reject(new PeerError(code, text + what, { ...cause, ...outcome }));
    };
    const timer = setTimeout(() => giveUp("request_timeout", `no answer came within ${timeoutMs} ms`, {}), timeoutMs);
    const unlisten =
      signal &&
      onAbort(signal, () => giveUp("aborted", "the wait for the answer was aborted", { cause: signal.reason }));
    const end = (): void => {
      isOver = true;
      clearTimeout(timer);
      unlisten?.();
    };
    ask((next, mayHaveBegun) => {
      if (isOver) throw new PeerError("aborted", "nobody waits for the answer any more");
      askedBefore = mayHaveBegun;
      asked = next();
      return asked;
    })
      .then(resolve, reject)
      .finally(end);
  });
}
