/**
 * Questions to Postgres that are asked one by one and answered together.
 *
 * What is asked while nothing is under way is sent at the end of the present turn of the event loop; what is asked
 * meanwhile waits for the answer, and is then sent in one statement. So a single question waits for nobody, and
 * thousands of them are a few statements.
 */
import { type Clock, delay } from "../runtime/index.js";

/** A pause between statements. */
export interface Pause {
  readonly clock: Clock;
  /** From the beginning of one to the beginning of the next, in milliseconds. */
  readonly ms: number;
}

/**
 * Gathers questions.
 *
 * @param askAll answers many of them, in their order. What it throws, each of them throws
 * @param pause default: the next statement follows the one before at once
 * @returns asks one
 */
export function gathered<Question, Answer>(
  askAll: (questions: readonly Question[]) => Promise<readonly Answer[]>,
  pause?: Pause,
): (question: Question) => Promise<Answer> {
  let waiting: { question: Question; resolve: (answer: Answer) => void; reject: (error: unknown) => void }[] = [];
  let isBusy = false;
  let begunAt = Number.NEGATIVE_INFINITY;
  const ask = async (): Promise<void> => {
    if (pause !== undefined) {
      await delay(Math.max(0, begunAt + pause.ms - pause.clock.now()), undefined, pause.clock);
      begunAt = pause.clock.now();
    }
    const asked = waiting;
    waiting = [];
    try {
      const answers = await askAll(asked.map(({ question }) => question));
      for (const [index, { resolve }] of asked.entries()) resolve(answers[index] as Answer);
    } catch (error) {
      for (const { reject } of asked) reject(error);
    }
  };
  const askOn = async (): Promise<void> => {
    // So that all who ask in one turn, each perhaps after a promise or two, are asked for together.
    await new Promise(setImmediate);
    while (waiting.length > 0) await ask();
    isBusy = false;
  };
  return (question) =>
    new Promise((resolve, reject) => {
      waiting.push({ question, resolve, reject });
      if (isBusy) return;
      isBusy = true;
      void askOn();
    });
}
