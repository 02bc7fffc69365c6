/**
 * Totals of handlers by topic, as the beats of a worker report them: `totals` in `running` of the table `workers`. They begin at 0 with each
 * worker of the store, and never fall. What ends between the last beat of a worker that is lost and the first one of the next is not reported.
 */
import { sampleConstants } from "../../../../generated/ts/settings/queue.js";
import { type HandledCounts, otherTopic } from "../../handlers/handled-counts.js";
import type { TopicHandlers } from "../../handlers/topic-handlers.js";
import { reportedDurations, reportedLimitsMs } from "../../store/index.js";

/** Handled messages, failed attempts, milliseconds in handlers, and the number of handlers by duration, as in `samples`. */
type Totals = readonly number[];

interface ReportedTopic {
  /** Counts of the topic, which begin anew when it gets a handler again. */
  counts: HandledCounts;
  /** Totals of counts that have ended. */
  carried: Totals;
  /** Totals that the workers before this one have reported. */
  base: Totals;
}

/** Number of the totals that are no durations. */
const totalsOnly = 3;
/** Bytes of the reports of all topics without their durations, for which there is room while they are short. */
const maxBytes = 40_000;
/** Most bytes of the three totals of a topic in a report. */
const bytesOfTotals = 60;
/** Bytes up to which a report tells durations. */
const maxBytesWithDurations = 55_000;

export class HandledTotals {
  readonly #handlers: Pick<TopicHandlers, "counts" | "otherCounts">;
  /** A topic that was once reported stays so: a total that disappears and comes back would count twice. */
  readonly #reported = new Map<string, ReportedTopic>();
  #bytes = 0;

  constructor(handlers: Pick<TopicHandlers, "counts" | "otherCounts">) {
    this.#handlers = handlers;
  }

  /** A new worker begins at 0. */
  beginWorker(): void {
    for (const topic of this.#reported.values()) topic.base = sum(topic.carried, totalsOf(topic.counts));
  }

  /** Report as a JSON object; undefined if nothing was handled. @param usedBytes length of what else is reported */
  report(usedBytes: number): string | undefined {
    this.#update();
    let left = maxBytesWithDurations - usedBytes - this.#bytes;
    const entries: string[] = [];
    for (const [topic, { carried, base, counts }] of this.#reported) {
      const all = sum(carried, totalsOf(counts)).map((total, nth) => Math.round(total - base[nth]!));
      const last = all.findLastIndex((total) => total > 0);
      if (last < 0) continue;
      const durations = all
        .slice(totalsOnly, last + 1)
        .map((count) => `,${count}`)
        .join("");
      left -= durations.length;
      entries.push(`${JSON.stringify(topic)}:[${all.slice(0, totalsOnly).join(",")}${left > 0 ? durations : ""}]`);
    }
    return entries.length === 0 ? undefined : `{${entries.join(",")}}`;
  }

  #update(): void {
    for (const [topic, counts] of this.#handlers.counts) {
      if (topic === otherTopic && counts === this.#handlers.otherCounts) continue;
      const reported = this.#reported.get(topic);
      if (reported !== undefined) {
        if (reported.counts === counts) continue;
        reported.carried = sum(reported.carried, totalsOf(reported.counts));
        reported.counts = counts;
      } else if (totalsOf(counts).some((total) => total !== 0)) {
        const bytes = Buffer.byteLength(JSON.stringify(topic)) + bytesOfTotals;
        if (this.#reported.size === sampleConstants.reportedTopics || this.#bytes + bytes > maxBytes) continue;
        this.#bytes += bytes;
        this.#reported.set(topic, { counts, carried: none, base: none });
      }
    }
  }
}

function totalsOf({ handled, durations }: HandledCounts): Totals {
  const failed = handled.retried + handled.dead_letter + handled.dropped;
  return [handled.done, failed, durations.sum * 1_000, ...reportedDurations(durations.buckets)];
}

const none: Totals = new Array<number>(totalsOnly + reportedLimitsMs.length).fill(0);

const sum = (one: Totals, other: Totals): Totals => one.map((total, nth) => total + other[nth]!);
