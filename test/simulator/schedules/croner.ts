/**
 * Keeps what Croner has said. The same expressions are asked for the same seconds around few changes of clocks in all runs, and an
 * answer takes Croner longer than all else in a run. An answer depends on the expression, its rules and the time alone; the product
 * asks, and goes on with it, as ever.
 */
import { Cron } from "croner";

const mostAnswers = 500_000;

/** By what is asked, and by the time. */
const known = new Map<string, Map<number, number | null>>();
const places = new WeakMap<Cron, Map<number, number | null>>();
let answers = 0;

/** Whatever of the options is not undefined is in the text. */
function answersOf(cron: Cron): Map<number, number | null> {
  let found = places.get(cron);
  if (found === undefined) {
    const place = JSON.stringify([cron.getPattern(), cron.options]);
    found = known.get(place) ?? new Map();
    known.set(place, found);
    places.set(cron, found);
  }
  return found;
}

const { nextRun } = Cron.prototype;

Cron.prototype.nextRun = function (this: Cron, after) {
  // Only this is a function of what is given: of a job that runs, and without a time, it is not.
  if (!(after instanceof Date) || this.currentRun() !== null) return nextRun.call(this, after);
  const found = answersOf(this);
  const at = after.getTime();
  let next = found.get(at);
  if (next === undefined) {
    next = nextRun.call(this, after)?.getTime() ?? null;
    if (answers >= mostAnswers) {
      for (const each of known.values()) each.clear();
      answers = 0;
    }
    found.set(at, next);
    answers += 1;
  }
  return next === null ? null : new Date(next);
};
