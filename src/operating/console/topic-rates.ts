/** Topics with their present rates, for `hawser top`. */
import {
  type Listing,
  type PresentRates,
  presentPoints,
  type SeriesReading,
  type SeriesRequest,
  type TopicOverview,
} from "../operate/index.js";
import type { Reading } from "./reading.js";

/** Orders of lists: what waits and the oldest message, names, and of topics the rates. */
export const topSorts = ["waiting", "oldest", "in", "out", "failed", "name"] as const;
export type TopSort = (typeof topSorts)[number];

/** Topic with its rates of the last two minutes, per second; null: not known. */
export type TopicRates = TopicOverview & Pick<PresentRates, "enqueued" | "handled" | "failed">;

/** Readings that the rates are of. */
interface Sources {
  readonly topics: (listing: Listing) => Promise<Reading<TopicOverview[]>>;
  readonly series: (request: SeriesRequest) => Promise<Reading<SeriesReading>>;
}

/** Number of topics that have rates. */
const ratedTopics = 500;

const rates = { in: "enqueued", out: "handled", failed: "failed" } as const;

/** Reads topics with their rates. @param sort by a rate: the order of the first ones that the listing has */
export async function readTopicRates(read: Sources, listing: Listing, sort?: TopSort): Promise<Reading<TopicRates[]>> {
  const topics = await read.topics(listing);
  if (topics.state !== "read") return topics;
  const names = topics.value.slice(0, ratedTopics).map(({ topic }) => topic);
  const series = names.length === 0 ? undefined : await read.series({ kind: "topic", names, points: presentPoints });
  if (series !== undefined && series.state !== "read") return series;
  const present = new Map(series?.value.series.map((each) => [each.name, each.present]));
  const none = { enqueued: null, handled: null, failed: null };
  const value = topics.value.map((row): TopicRates => {
    const { enqueued, handled, failed } = present.get(row.topic) ?? none;
    return { ...row, enqueued, handled, failed };
  });
  const by = rates[sort as keyof typeof rates];
  if (by !== undefined) value.sort((one, other) => (other[by] ?? -1) - (one[by] ?? -1));
  return { state: "read", value };
}
