/**
 * Which messages a stream has stored since some time, and whether those are all that it took since then.
 *
 * Where a stream keeps what was consumed, they are read by a consumer, without payloads. Such a consumer is refused by a work queue, by
 * a stream with all the consumers that it may have, and to a user without the right; and a stream that removes what was consumed would
 * keep messages for it. There, each message is asked for by its number.
 */
import { DeliverPolicy, type MsgRequest, PubHeaders, RetentionPolicy, type StreamInfo } from "@nats-io/jetstream";
import { millis, type NatsConnection } from "@nats-io/transport-node";
import { NatsError } from "../../errors/index.js";
import { type JetStream, jetStreamOf } from "./jetstream.js";

/** A stream that takes a subject. */
export interface FoundStream {
  readonly name: string;
  /** How long it knows the id of a message (its duplicate_window). */
  readonly windowMs: number;
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
}

/** What a look has found. */
export interface StreamContent {
  /** The ids (Nats-Msg-Id) of the messages of the subject; there may be others among them. */
  readonly ids: ReadonlySet<string>;
  /** Why the stream may have taken others; undefined: it has not. */
  readonly gap: string | undefined;
  /** It removes what was consumed. */
  readonly isConsumed: boolean;
  /** The ids are those of all subjects. */
  readonly isOfAll: boolean;
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
  const { config } = await jetStream.manager.streams.info(name);
  return { name, windowMs: millis(config.duplicate_window ?? 0), subject, jetStream, timeoutMs };
}

/** @throws what the library throws; NatsError nats_timeout */
export async function lookInto(stream: FoundStream, range: LookRange, readsAll = false): Promise<StreamContent> {
  const { name, subject, jetStream } = stream;
  const { streams } = jetStream.manager;
  const before = await streams.info(name);
  const { config, state } = before;
  const isConsumed = config.retention !== RetentionPolicy.Limits;
  const since = timeOfServer(before) - (performance.now() - range.since) - range.skewMs;
  const ids = new Set<string>();
  if (state.last_seq === 0 || timeOf(state.last_ts) < since) return { ids, gap: undefined, isConsumed, isOfAll: true };
  // Of a stream without gaps the messages of the subject are enough. Of others, whether one is missing shows in the numbers of all. So it
  // is where messages are stored with other subjects than they were published to.
  const needsGaps = isConsumed || range.needsGaps;
  const isAll = readsAll || (needsGaps && state.num_deleted > 0) || config.subject_transform !== undefined;
  const filter = isAll ? ">" : subject;
  const from = since - range.marginMs;
  // From the server that stores messages: the one of a consumer may not be as far.
  const last = await streams.getMessage(name, { last_by_subj: filter });
  let messages: readonly Stored[] = [];
  if (last !== null && last.time.getTime() >= from) {
    const part = { filter, from, last: last.seq };
    messages = await (isConsumed
      ? readOneByOne(stream, part, range)
      : readByConsumer(stream, part).catch((error: unknown) => {
          if (error instanceof NatsError) throw error;
          return readOneByOne(stream, part, range);
        }));
  }
  const { state: after } = await streams.info(name);
  if (!isAll && needsGaps && after.num_deleted > 0) return lookInto(stream, range, true);
  for (const { id } of messages) if (id !== undefined) ids.add(id);
  const gap = gapAtFront(after, since) ?? (isAll ? await gapWithin(stream, messages, state, since) : undefined);
  return { ids, gap, isConsumed, isOfAll: isAll };
}

interface Part {
  readonly filter: string;
  /** By the server's clock. */
  readonly from: number;
  /** The number of the last one. */
  readonly last: number;
}

async function readByConsumer({ name, jetStream, subject, timeoutMs }: FoundStream, part: Part): Promise<Stored[]> {
  const consumer = await jetStream.client.consumers.get(name, {
    filter_subjects: [part.filter],
    deliver_policy: DeliverPolicy.StartTime,
    opt_start_time: new Date(part.from).toISOString(),
    headers_only: true,
  });
  const found: Stored[] = [];
  try {
    const messages = await consumer.consume();
    // It may never come to the end: the stream may have removed the last ones meanwhile.
    const timer = setTimeout(() => messages.stop(), timeoutMs);
    try {
      for await (const message of messages) {
        const { seq, headers } = message;
        const at = Math.floor(message.info.timestampNanos / 1e6);
        found.push({ seq, at, id: headers?.get(PubHeaders.MsgIdHdr) || undefined });
        if (seq >= part.last) return found;
        timer.refresh();
      }
    } finally {
      clearTimeout(timer);
    }
  } finally {
    // The server would keep it for minutes, and a stream has a limit for its consumers.
    consumer.delete().catch(() => undefined);
  }
  throw new NatsError("nats_timeout", `The messages of the subject "${subject}" did not all come.`);
}

async function readOneByOne(stream: FoundStream, part: Part, { requests }: LookRange): Promise<Stored[]> {
  const first = await firstFrom(stream, part);
  const size = Math.max(1, Math.ceil((part.last - first + 1) / requests));
  const begins = Array.from({ length: requests }, (_, nth) => first + nth * size).filter((seq) => seq <= part.last);
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
  return parts.flat();
}

/** The number from which on the messages are stored that are to be read. */
async function firstFrom(stream: FoundStream, { from, last }: Part): Promise<number> {
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

/** Whether the stream may have removed its first messages. */
function gapAtFront(state: StreamInfo["state"], since: number): string | undefined {
  const hasEarlier = state.messages > 0 && (state.first_seq <= 1 || timeOf(state.first_ts) < since);
  return hasEarlier ? undefined : "it has nothing that is as old";
}

/** Whether messages were removed from between others, or from behind them. */
async function gapWithin(
  { name, jetStream }: FoundStream,
  messages: readonly Stored[],
  { first_seq, last_seq }: StreamInfo["state"],
  since: number,
): Promise<string | undefined> {
  const gap = "messages were removed from it";
  const [first] = messages;
  if (first === undefined || messages.at(-1)!.seq < last_seq) return gap;
  if (messages.some(({ seq, at }, nth) => nth > 0 && at >= since && seq !== messages[nth - 1]!.seq + 1)) return gap;
  if (first.at < since || first.seq <= first_seq) return undefined;
  const isThere = (await jetStream.manager.streams.getMessage(name, { seq: first.seq - 1 })) !== null;
  return isThere ? undefined : gap;
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
