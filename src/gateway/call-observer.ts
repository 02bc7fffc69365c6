/**
 * Tells somebody of each call: what was called, how it ended and how long it took.
 */
import type { Answer, GatewaySession } from "./protocol/index.js";

/** @param method the first word of the call */
export type CallObserver = (method: string, outcome: "ok" | "error", durationMs: number) => void;

type Answering = (query: Uint8Array, session: GatewaySession) => Answer | Promise<Answer>;

const space = 0x20;

/** Longer words are no method. */
const longestMethod = 64;

/** The same answers, of which the observer is told. */
export function observed(answer: Answering, observer: CallObserver | undefined): Answering {
  if (observer === undefined) return answer;
  return (query, session) => {
    const startedAt = performance.now();
    const end = query.subarray(0, longestMethod).indexOf(space);
    const method = Buffer.from(query.buffer, query.byteOffset, end === -1 ? 0 : end).toString("latin1");
    const tell = (outcome: "ok" | "error"): void => observer(method, outcome, performance.now() - startedAt);
    try {
      const answered = answer(query, session);
      if (!(answered instanceof Promise)) {
        tell("ok");
        return answered;
      }
      return answered.then(
        (value) => {
          tell("ok");
          return value;
        },
        (error: unknown) => {
          tell("error");
          throw error;
        },
      );
    } catch (error) {
      tell("error");
      throw error;
    }
  };
}
