/**
 * Searches a stream for the ids of messages that it has stored since a given time, and finds out since when the result
 * is complete.
 *
 * If the stream keeps consumed messages, they are read by a consumer, without payloads. The messages are requested one
 * by one if the stream removes consumed messages, since it would refuse the consumer (a work queue) or keep messages
 * for it; or if the consumer is refused, because the stream has reached its limit of consumers, or the user may not
 * create one.
 *
 * Times are those of the server, which reports its clock. Servers before 2.10 do not; their clock is assumed to be that
 * of this process.
 */
import { type MsgRequest, PubHeaders, RetentionPolicy, type StreamInfo } from "@nats-io/jetstream";
import { millis, type NatsConnection } from "@nats-io/transport-node";
import { HawserError } from "../../../foundation/errors/index.js";
import { deliver, storedAtMs } from "./delivery.js";
import { type JetStream, jetStreamOf } from "./jetstream.js";

/** Stream that stores a subject. */
export interface FoundStream {
  readonly name: string;
  /** Time for which the stream knows the ids of messages (duplicate_window). */
  readonly windowMs: number;
  /** Time since which the stream still has all its messages (`performance.now()`, ms); Infinity if unknown. */
  readonly keepsSince: number;
  /** True if the stream is stored only by the server of this connection, which is in no cluster. */
  readonly isAlone: boolean;
  readonly subject: string;
  readonly jetStream: JetStream;
  /** Time limit of each request. */
  readonly timeoutMs: number;
}

/** Range and limits of a search. */
interface SearchRange {
  /** Start of the search (`performance.now()`, ms). */
  readonly since: number;
  /** Maximum difference between the clocks of the servers. */
  readonly skewMs: number;
  /** Time by which the search starts earlier, because clocks may have been set meanwhile. */
  readonly marginMs: number;
  /** True if removed messages must be noticed, even in a stream that keeps consumed ones. */
  readonly needsGaps: boolean;
  /** Number of concurrent requests when messages are requested one by one. */
  readonly requests: number;
  /** Maximum number of messages to read. */
  readonly maxMessages: number;
}

/** Result of a search. */
export interface StreamContent {
  /** Ids (Nats-Msg-Id) of the messages of the subject; may contain others. */
  readonly ids: ReadonlySet<string>;
  /** Time since which `ids` is complete (`performance.now()`, ms); Infinity if unknown. */
  readonly completeSince: number;
  /** True if the stream removes consumed messages. */
  readonly isConsumed: boolean;
}

/** A stored message, without its payload. */
interface StoredMessage {
  readonly seq: number;
  /** Time of storage, by the server's clock. */
  readonly at: number;
  readonly id: string | undefined;
}

/** Size of a message without its payload that a search expects. Any client may have written headers of any size. */
const headerBytes = 20 * 1024;

/** Finds the stream of a subject. @throws errors of nats.js, also if there is none */
export async function streamOf(
  connection: NatsConnection,
  subject: string,
  domain: string | undefined,
  timeoutMs: number,
): Promise<FoundStream> {
  const jetStream = await jetStreamOf(connection, domain, timeoutMs);
  const name = await jetStream.manager.streams.find(subject);
  const info = await jetStream.manager.streams.info(name);
  const { config, state, cluster } = info;
  const hasAll = config.retention === RetentionPolicy.Limits && state.num_deleted === 0;
  const keepsAll = hasAll && state.first_seq <= 1;
  const firstAt = keepsAll ? Date.parse(info.created) : hasAll ? timeOf(state.first_ts) : Number.POSITIVE_INFINITY;
  return {
    ...{ name, subject, jetStream, timeoutMs },
    windowMs: millis(config.duplicate_window ?? 0),
    keepsSince: performance.now() - (timeOfServer(info) - firstAt),
    isAlone: cluster === undefined && domain === undefined,
  };
}

/**
 * Searches the messages of a subject.
 *
 * @param all searches all messages of the stream. Needed if only consecutive numbers prove that none is missing, or if
 * messages are stored under other subjects than they were published to.
 * @throws errors of nats.js; HawserError nats_timeout
 */
export async function searchStream(
  stream: FoundStream,
  range: SearchRange,
  all: () => Promise<StreamContent>,
): Promise<StreamContent> {
  const { streams } = stream.jetStream.manager;
  const before = await streams.info(stream.name);
  const isConsumed = before.config.retention !== RetentionPolicy.Limits;
  const needsGaps = isConsumed || range.needsGaps;
  const mayHaveGaps = needsGaps && before.state.num_deleted > 0;
  if (mayHaveGaps || before.config.subject_transform !== undefined) return all();
  const clock = clockOf(before);
  const from = clock.toServer(range.since) - range.skewMs - range.marginMs;
  const seen = await read(stream, { filter: stream.subject, from }, isConsumed, range);
  const after = await streams.info(stream.name);
  if (needsGaps && after.state.num_deleted > 0) return all();
  const completeFrom = Math.max(seen.from, frontOf(after));
  return { ids: seen.ids, completeSince: clock.toLocal(completeFrom) + range.skewMs, isConsumed };
}

/** Searches all messages of a stream. @throws errors of nats.js; HawserError nats_timeout */
export async function searchWholeStream(stream: FoundStream, range: SearchRange): Promise<StreamContent> {
  const { streams } = stream.jetStream.manager;
  const before = await streams.info(stream.name);
  const isConsumed = before.config.retention !== RetentionPolicy.Limits;
  const clock = clockOf(before);
  const from = clock.toServer(range.since) - range.skewMs - range.marginMs;
  const seen = await read(stream, { filter: ">", from }, isConsumed, range);
  const after = await streams.info(stream.name);
  const completeFrom = Math.max(seen.from, frontOf(after), await lastGapIn(stream, seen, before.state));
  return { ids: seen.ids, completeSince: clock.toLocal(completeFrom) + range.skewMs, isConsumed };
}

/** Messages that a search has read, in the order of their numbers. Times are by the server's clock. */
class FoundMessages {
  readonly ids = new Set<string>();
  /** Time since which all existing messages were read. */
  readonly from: number;
  first: StoredMessage | undefined;
  lastSeq = 0;
  /** Time of the message after the last gap in the numbers; -Infinity without a gap. */
  gapAt = Number.NEGATIVE_INFINITY;

  constructor(from: number) {
    this.from = from;
  }

  add(message: StoredMessage): void {
    const { seq, at, id } = message;
    if (id !== undefined) this.ids.add(id);
    if (this.first === undefined) this.first = message;
    else if (seq !== this.lastSeq + 1) this.gapAt = at;
    this.lastSeq = seq;
  }
}

/** Part of a stream to read. */
interface Part {
  readonly filter: string;
  /** Start of the part, by the server's clock. */
  readonly from: number;
  /** Sequence numbers of the first and the last message in the range. */
  readonly first: number;
  readonly last: number;
}

async function read(
  stream: FoundStream,
  { filter, from }: Pick<Part, "filter" | "from">,
  isConsumed: boolean,
  range: SearchRange,
): Promise<FoundMessages> {
  // This request is answered by the server that stores messages; the server of a consumer may lag behind.
  const last = await stream.jetStream.manager.streams.getMessage(stream.name, { last_by_subj: filter });
  if (last === null || last.time.getTime() < from) return new FoundMessages(from);
  const first = await firstFrom(stream, from, last.seq);
  if (last.seq - first >= range.maxMessages) return new FoundMessages(Number.POSITIVE_INFINITY);
  const part = { filter, from, first, last: last.seq };
  const oneByOne = (): Promise<FoundMessages> => readOneByOne(stream, part, range);
  return isConsumed ? oneByOne() : readByConsumer(stream, part).catch(oneByOne);
}

async function readByConsumer(
  { name, jetStream, subject, timeoutMs }: FoundStream,
  { filter, from, first, last }: Part,
): Promise<FoundMessages> {
  const seen = new FoundMessages(from);
  const silence = new AbortController();
  const incomplete = () =>
    new HawserError("nats_timeout", `Not all messages of the subject "${subject}" arrived in time.`);
  const timer = setTimeout(() => silence.abort(incomplete()), timeoutMs);
  const selection = { stream: name, subject: filter, from: first, last, messageBytes: headerBytes, headersOnly: true };
  try {
    await deliver({ ...jetStream, signal: silence.signal }, selection, (delivery) => {
      timer.refresh();
      const id = delivery.message.headers?.get(PubHeaders.MsgIdHdr) || undefined;
      seen.add({ seq: delivery.number, at: storedAtMs(delivery), id });
    });
  } finally {
    clearTimeout(timer);
  }
  // The server of the consumer lags behind, or the last messages have been removed meanwhile.
  if (seen.lastSeq < last) throw incomplete();
  return seen;
}

async function readOneByOne(stream: FoundStream, part: Part, { requests }: SearchRange): Promise<FoundMessages> {
  const size = Math.max(1, Math.ceil((part.last - part.first + 1) / requests));
  const begins = Array.from({ length: requests }, (_, nth) => part.first + nth * size).filter(
    (seq) => seq <= part.last,
  );
  const parts = await Promise.all(
    begins.map(async (begin) => {
      const found: StoredMessage[] = [];
      const end = Math.min(begin + size - 1, part.last);
      for (let seq = begin; seq <= end; ) {
        const message = await nextOf(stream, seq, part.filter);
        if (message === undefined || message.seq > end) break;
        found.push(message);
        seq = message.seq + 1;
      }
      return found;
    }),
  );
  const seen = new FoundMessages(part.from);
  for (const message of parts.flat()) seen.add(message);
  return seen;
}

/** Sequence number of the first message that was stored at or after `from`. */
async function firstFrom(stream: FoundStream, from: number, last: number): Promise<number> {
  let low = (await stream.jetStream.manager.streams.info(stream.name)).state.first_seq;
  let high = last;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const message = await nextOf(stream, middle, ">");
    if (message === undefined || message.at >= from) high = middle;
    else low = message.seq + 1;
  }
  return low;
}

/** First message at or after a sequence number. */
async function nextOf(
  { name, jetStream }: FoundStream,
  seq: number,
  filter: string,
): Promise<StoredMessage | undefined> {
  // Servers support this request, but the types of nats.js lack it.
  const request: { seq: number; next_by_subj: string } = { seq, next_by_subj: filter };
  const message = await jetStream.manager.streams.getMessage(name, request as unknown as MsgRequest);
  if (message === null) return undefined;
  return {
    seq: message.seq,
    at: message.time.getTime(),
    id: message.header.get(PubHeaders.MsgIdHdr) || undefined,
  };
}

/**
 * Time since which no message was removed from the front of the stream, nor stored in an earlier stream of this name.
 */
function frontOf({ created, config, state }: StreamInfo): number {
  const isConsumed = config.retention !== RetentionPolicy.Limits;
  const madeAt = isConsumed ? Date.parse(created) : Number.NEGATIVE_INFINITY;
  // If the stream is empty, all its messages may have been removed.
  if (state.messages === 0) return state.last_seq === 0 ? madeAt : timeOf(state.last_ts);
  return state.first_seq <= 1 ? madeAt : Math.max(madeAt, timeOf(state.first_ts));
}

/** Time since which no number is missing, except at the front of the stream; -Infinity if none is missing. */
async function lastGapIn(
  { name, jetStream }: FoundStream,
  { first, lastSeq, gapAt }: FoundMessages,
  { first_seq, last_seq, last_ts }: StreamInfo["state"],
): Promise<number> {
  if (lastSeq < last_seq) return last_seq === 0 ? Number.NEGATIVE_INFINITY : timeOf(last_ts);
  if (gapAt !== Number.NEGATIVE_INFINITY || first === undefined || first.seq <= first_seq) return gapAt;
  const hasPrevious = (await jetStream.manager.streams.getMessage(name, { seq: first.seq - 1 })) !== null;
  return hasPrevious ? Number.NEGATIVE_INFINITY : first.at;
}

/** Conversion between the server's clock and `performance.now()`. */
interface ServerClock {
  toServer(localTime: number): number;
  toLocal(serverTime: number): number;
}

function clockOf(info: StreamInfo): ServerClock {
  // The answer took a while, so an age computed here is too small rather than too large.
  const ahead = timeOfServer(info) - performance.now();
  return { toServer: (localTime) => localTime + ahead, toLocal: (serverTime) => serverTime - ahead };
}

/** Time of the server's clock; before 2.10, of the clock of this process. */
function timeOfServer(info: StreamInfo): number {
  const { ts } = info as { readonly ts?: string };
  return ts === undefined ? Date.now() : Date.parse(ts);
}

/**
 * Parses a time into milliseconds since 1970. An empty stream reports a time in the year 1, for which it returns
 * Infinity.
 */
function timeOf(text: string): number {
  const at = Date.parse(text);
  return at > 0 ? at : Number.POSITIVE_INFINITY;
}
