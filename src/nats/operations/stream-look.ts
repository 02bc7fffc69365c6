/**
 * Which messages a stream has stored since some time, and whether those are all that it took since then.
 *
 * Where a stream keeps what was consumed, they are read by a consumer, without payloads. Such a consumer is refused by a work queue, by
 * a stream with all the consumers that it may have, and to a user without the right; and a stream that removes what was consumed would
 * keep messages for it. There, each message is asked for by its number.
 *
 * Times are those of the server. It says what time it is; before 2.10 it does not, and its clock is taken to be that of this process.
 */
import { DeliverPolicy, type MsgRequest, PubHeaders, RetentionPolicy, type StreamInfo } from "@nats-io/jetstream";
import { millis, type NatsConnection } from "@nats-io/transport-node";
import { HawserError } from "../../errors/index.js";
import { type JetStream, jetStreamOf } from "./jetstream.js";

/** A stream that takes a subject. */
export interface FoundStream {
  readonly name: string;
  /** How long it knows the id of a message (its duplicate_window). */
  readonly windowMs: number;
  /** All messages are there that it took since then, by `performance.now()`; Infinity: that is not known. */
  readonly keepsSince: number;
  /** Its server is the one that this process is connected to, and no member of a cluster. */
  readonly isAlone: boolean;
  readonly subject: string;
  readonly jetStream: JetStream;
  /** Of each request. */
  readonly timeoutMs: number;
}

/** How far a look goes. */
interface LookRange {
  /** What was stored since then, by `performance.now()`. */
  readonly since: number;
  /** How far the clocks of the servers may be apart. */
  readonly skewMs: number;
  /** It begins so much earlier, as their clocks may have been set meanwhile. */
  readonly marginMs: number;
  /** Whether it has to tell what the stream has removed, if that keeps what was consumed. */
  readonly needsGaps: boolean;
  /** How many requests are under way at once, where messages are asked for one by one. */
  readonly requests: number;
  /** Limit of the messages that a look reads. */
  readonly maxMessages: number;
}

/** What a look has found. */
export interface StreamContent {
  /** The ids (Nats-Msg-Id) of the messages of the subject; there may be others among them. */
  readonly ids: ReadonlySet<string>;
  /** Time since which `ids` has those of all messages that the stream stored, by `performance.now()`; Infinity: not known. */
  readonly completeSince: number;
  /** It removes what was consumed. */
  readonly isConsumed: boolean;
}

/** A message as far as a look needs it. */
interface Stored {
  readonly seq: number;
  /** By the server's clock. */
  readonly at: number;
  readonly id: string | undefined;
}

/** @throws what the library throws; there may be no stream */
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
 * @param all looks at all messages of the stream: where the numbers of all have to show that none is missing, and where messages are
 * stored with other subjects than they were published to
 * @throws what the library throws; HawserError nats_timeout
 */
export async function lookInto(
  stream: FoundStream,
  range: LookRange,
  all: () => Promise<StreamContent>,
): Promise<StreamContent> {
  const { streams } = stream.jetStream.manager;
  const before = await streams.info(stream.name);
  const isConsumed = before.config.retention !== RetentionPolicy.Limits;
  const needsGaps = isConsumed || range.needsGaps;
  const mayHaveGaps = needsGaps && before.state.num_deleted > 0;
  if (mayHaveGaps || before.config.subject_transform !== undefined) return all();
  const clock = clockOf(before);
  const from = clock.at(range.since) - range.skewMs - range.marginMs;
  const seen = await read(stream, { filter: stream.subject, from }, isConsumed, range);
  const after = await streams.info(stream.name);
  if (needsGaps && after.state.num_deleted > 0) return all();
  const completeFrom = Math.max(seen.from, frontOf(after));
  return { ids: seen.ids, completeSince: clock.here(completeFrom) + range.skewMs, isConsumed };
}

/** @throws what the library throws; HawserError nats_timeout */
export async function lookIntoAll(stream: FoundStream, range: LookRange): Promise<StreamContent> {
  const { streams } = stream.jetStream.manager;
  const before = await streams.info(stream.name);
  const isConsumed = before.config.retention !== RetentionPolicy.Limits;
  const clock = clockOf(before);
  const from = clock.at(range.since) - range.skewMs - range.marginMs;
  const seen = await read(stream, { filter: ">", from }, isConsumed, range);
  const after = await streams.info(stream.name);
  const completeFrom = Math.max(seen.from, frontOf(after), await lastHoleIn(stream, seen, before.state));
  return { ids: seen.ids, completeSince: clock.here(completeFrom) + range.skewMs, isConsumed };
}

/** Messages that a look has read, in the order of their numbers. Times are by the server's clock. */
class Seen {
  readonly ids = new Set<string>();
  /** Everything that is there since then was read. */
  readonly from: number;
  first: Stored | undefined;
  lastSeq = 0;
  /** Time of the message behind the last number that is missing between two others. */
  holeAt = Number.NEGATIVE_INFINITY;

  constructor(from: number) {
    this.from = from;
  }

  add(message: Stored): void {
    const { seq, at, id } = message;
    if (id !== undefined) this.ids.add(id);
    if (this.first === undefined) this.first = message;
    else if (seq !== this.lastSeq + 1) this.holeAt = at;
    this.lastSeq = seq;
  }
}

interface Part {
  readonly filter: string;
  /** By the server's clock. */
  readonly from: number;
  /** The numbers of the first one, if that is known, and of the last one. */
  readonly first: number;
  readonly last: number;
}

async function read(
  stream: FoundStream,
  { filter, from }: Pick<Part, "filter" | "from">,
  isConsumed: boolean,
  range: LookRange,
): Promise<Seen> {
  // From the server that stores messages: the one of a consumer may not be as far.
  const last = await stream.jetStream.manager.streams.getMessage(stream.name, { last_by_subj: filter });
  if (last === null || last.time.getTime() < from) return new Seen(from);
  const first = await firstFrom(stream, from, last.seq);
  if (last.seq - first >= range.maxMessages) return new Seen(Number.POSITIVE_INFINITY);
  const part = { filter, from, first, last: last.seq };
  const oneByOne = (): Promise<Seen> => readOneByOne(stream, part, range);
  return isConsumed ? oneByOne() : readByConsumer(stream, part).catch(oneByOne);
}

async function readByConsumer({ name, jetStream, subject, timeoutMs }: FoundStream, part: Part): Promise<Seen> {
  const consumer = await jetStream.client.consumers.get(name, {
    filter_subjects: [part.filter],
    deliver_policy: DeliverPolicy.StartSequence,
    opt_start_seq: part.first,
    headers_only: true,
  });
  const seen = new Seen(part.from);
  try {
    const messages = await consumer.consume();
    // It may never come to the end: the stream may have removed the last ones meanwhile.
    const timer = setTimeout(() => messages.stop(), timeoutMs);
    try {
      for await (const message of messages) {
        const { seq, headers } = message;
        const at = Math.floor(message.info.timestampNanos / 1e6);
        seen.add({ seq, at, id: headers?.get(PubHeaders.MsgIdHdr) || undefined });
        if (seq >= part.last) return seen;
        timer.refresh();
      }
    } finally {
      clearTimeout(timer);
    }
  } finally {
    // The server would keep it for minutes, and a stream has a limit for its consumers.
    consumer.delete().catch(() => undefined);
  }
  throw new HawserError("nats_timeout", `The messages of the subject "${subject}" did not all come.`);
}

async function readOneByOne(stream: FoundStream, part: Part, { requests }: LookRange): Promise<Seen> {
  const size = Math.max(1, Math.ceil((part.last - part.first + 1) / requests));
  const begins = Array.from({ length: requests }, (_, nth) => part.first + nth * size).filter(
    (seq) => seq <= part.last,
  );
  const parts = await Promise.all(
    begins.map(async (begin) => {
      const found: Stored[] = [];
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
  const seen = new Seen(part.from);
  for (const message of parts.flat()) seen.add(message);
  return seen;
}

/** The number from which on the messages are stored that are to be read. */
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

/** The first message from that number on. */
async function nextOf({ name, jetStream }: FoundStream, seq: number, filter: string): Promise<Stored | undefined> {
  // The server knows this request, and the types of the library do not.
  const request: { seq: number; next_by_subj: string } = { seq, next_by_subj: filter };
  const message = await jetStream.manager.streams.getMessage(name, request as unknown as MsgRequest);
  if (message === null) return undefined;
  return {
    seq: message.seq,
    at: message.time.getTime(),
    id: message.header.get(PubHeaders.MsgIdHdr) || undefined,
  };
}

/** Since when the stream has all of its first messages, and no other one of its name may have had them. */
function frontOf({ created, config, state }: StreamInfo): number {
  const isConsumed = config.retention !== RetentionPolicy.Limits;
  const madeAt = isConsumed ? Date.parse(created) : Number.NEGATIVE_INFINITY;
  // Of an empty one all may have been removed.
  if (state.messages === 0) return state.last_seq === 0 ? madeAt : timeOf(state.last_ts);
  return state.first_seq <= 1 ? madeAt : Math.max(madeAt, timeOf(state.first_ts));
}

/** The time of the last message before which, or behind which, others were removed that are not the first ones. */
async function lastHoleIn(
  { name, jetStream }: FoundStream,
  { first, lastSeq, holeAt }: Seen,
  { first_seq, last_seq, last_ts }: StreamInfo["state"],
): Promise<number> {
  if (lastSeq < last_seq) return last_seq === 0 ? Number.NEGATIVE_INFINITY : timeOf(last_ts);
  if (holeAt !== Number.NEGATIVE_INFINITY || first === undefined || first.seq <= first_seq) return holeAt;
  const isThere = (await jetStream.manager.streams.getMessage(name, { seq: first.seq - 1 })) !== null;
  return isThere ? Number.NEGATIVE_INFINITY : first.at;
}

/** The clock of the server, and that of this process, as `performance.now()`. */
function clockOf(info: StreamInfo): { readonly at: (here: number) => number; readonly here: (at: number) => number } {
  // The answer took a while: what is so old here is older there.
  const ahead = timeOfServer(info) - performance.now();
  return { at: (here) => here + ahead, here: (at) => at - ahead };
}

/** The clock of the server; before 2.10 it does not tell it. */
function timeOfServer(info: StreamInfo): number {
  const { ts } = info as { readonly ts?: string };
  return ts === undefined ? Date.now() : Date.parse(ts);
}

/** Infinity: it is not known. A stream that has no messages gives a time of the year 1. */
function timeOf(text: string): number {
  const at = Date.parse(text);
  return at > 0 ? at : Number.POSITIVE_INFINITY;
}
