/** Handlers of the user by topic, with their settings. */

import { type BatchSettings, peerSettingsDefaults, protocolConstants } from "../../../generated/ts/settings/peer.js";
import { queueConstants } from "../../../generated/ts/settings/queue.js";
import { HawserError, Reject } from "../../foundation/errors/index.js";
import { decodeChecked, type SchemaTopic } from "../../foundation/payloads/index.js";
import { type Headers, headerValue, type Origin, type RetryPolicy } from "../channel/index.js";
import type { HandlingCalls } from "../peer-store/index.js";
import { HandledCounts, otherTopic } from "./handled-counts.js";
import type { BatchHandling, HandlingSettings, Membership } from "./handling-settings.js";
import { ConcurrencyLimit } from "./limits/concurrency-limit.js";
import { BatchView, type Handler, type MessageView, type Reply } from "./message.js";

/** Kind of a handler. A topic can have one of each kind. */
export type HandledKind = "messages" | "requests";

/** Handler of the messages of a topic, or of its requests. */
export interface TopicHandler {
  /** Settings for a message with these headers; undefined if no handler accepts it. */
  settingsOf(headers: Headers | undefined): HandlingSettings | undefined;
  /** Settings of its types, or of the handler of all messages or requests. */
  readonly settings: readonly HandlingSettings[];
  /** @returns the answer to a request, or a promise of it */
  handle(message: MessageView): unknown;
  /** Decodes a message, if the handler is for types. @throws HawserError `invalid_message` */
  decode?(headers: Headers | undefined, payload: Uint8Array): unknown;
  /** Called after the handler was replaced or removed. */
  ended(): void;
}

/** Handler of all messages or requests of a topic. */
export function plainHandler(handle: Handler, settings: HandlingSettings, ended: () => void): TopicHandler {
  return { settingsOf: () => settings, settings: [settings], handle, ended };
}

/** Handler of the messages of a topic that a schema decodes. */
export function schemaHandler(
  to: SchemaTopic,
  handler: (value: never, message: never) => unknown,
  settings: HandlingSettings,
  ended: () => void,
): TopicHandler {
  return {
    ...plainHandler(
      (message) => handler(decodeChecked(to, message.payload) as never, message as never),
      settings,
      ended,
    ),
    decode: (_, payload) => decodeChecked(to, payload),
  };
}

/** @param isTyped true if the handler gets decoded messages */
export function batchHandling(
  settings: BatchSettings,
  handler: (values: never, batch: never) => unknown,
  isTyped: boolean,
): BatchHandling {
  return {
    settings,
    async handle(messages, values, fail) {
      const batch = new BatchView(messages, fail);
      try {
        return await handler((isTyped ? values : messages) as never, batch as never);
      } finally {
        batch.end();
      }
    },
  };
}

/** Topic with its handlers, of which at least one is set. */
export interface ServedTopic {
  readonly name: string;
  messages: TopicHandler | undefined;
  requests: TopicHandler | undefined;
  /** False while the topic is being unregistered, and after that. */
  isServed: boolean;
  /** Counts of the topic; those of all other topics once it is removed. */
  counts: HandledCounts;
}

export class TopicHandlers {
  readonly #topics = new Map<string, ServedTopic>();
  /** False while no handler ever had a limit and no topic was paused, so that messages need no look-up of either. */
  hasLimits = false;
  /** Limits of paused topics, which let no message start. */
  readonly #pauses = new Map<string, ConcurrencyLimit>();
  readonly #pausedHere = new Set<string>();
  #pausedEverywhere: readonly string[] = [];
  /** Topics of which it is not known yet whether they are paused in all processes: they count as paused. */
  readonly #unknown = new Set<string>();
  /** Counts of all topics without a handler, with those that had one. */
  readonly otherCounts = new HandledCounts();

  /** Called with the label of the topic and the seconds of each measured handler. */
  readonly durationListeners = new Set<(topic: string, seconds: number) => void>();

  readonly #peer: Origin;
  /** Settings of messages without a known handler. */
  readonly defaults: HandlingSettings;
  readonly reply: Reply;

  constructor(peer: Origin, defaults: HandlingSettings, reply: Reply) {
    this.#peer = peer;
    this.defaults = defaults;
    this.reply = reply;
  }

  /** Topic with its handlers; undefined if it has none. */
  get(topic: string): ServedTopic | undefined {
    return this.#topics.get(topic);
  }

  /** Served topics. */
  get topics(): string[] {
    return [...this.#topics.keys()].filter((topic) => this.serves(topic));
  }

  serves(topic: string): boolean {
    return this.#topics.get(topic)?.isServed === true;
  }

  get isEmpty(): boolean {
    return this.#topics.size === 0;
  }

  /** True if senders store messages of the topic while the peer is stopped. */
  isDurable(topic: string): boolean {
    return this.#settingsOf(topic).some(({ durable }) => durable);
  }

  /** True if all message handlers of the topic are transactional. */
  isTransactional(topic: string): boolean {
    const settings = this.#topics.get(topic)?.messages?.settings ?? [];
    return settings.length > 0 && settings.every(({ transactional }) => transactional);
  }

  /** Group membership, which all handlers share; that of the defaults if there is no handler. */
  get membership(): Membership {
    for (const topic of this.#topics.keys()) for (const settings of this.#settingsOf(topic)) return settings;
    return this.defaults;
  }

  /** Counts of a topic; without a handler, those of all other topics. */
  countsOf(topic: string | undefined): HandledCounts {
    return (topic === undefined ? undefined : this.#topics.get(topic)?.counts) ?? this.otherCounts;
  }

  /** Records how long a handler took. */
  tookMs(topic: string | undefined, ms: number): void {
    this.countsOf(topic).durations.observe(ms / 1_000);
    if (this.durationListeners.size === 0) return;
    const label = topic !== undefined && this.#topics.has(topic) ? topic : otherTopic;
    for (const listener of this.durationListeners) listener(label, ms / 1_000);
  }

  /** Counts by topic, without those that have no handler; they are under {@link otherTopic}. */
  get counts(): ReadonlyMap<string, HandledCounts> {
    const counts = [...this.#topics].map(([topic, entry]) => [topic, entry.counts] as const);
    return new Map([...counts, [otherTopic, this.otherCounts]]);
  }

  handlerOf(topic: string, kind: HandledKind): TopicHandler | undefined {
    return this.#topics.get(topic)?.[kind];
  }

  /** Sets a handler, and replaces an earlier one. */
  set(topic: string, kind: HandledKind, handler: TopicHandler): void {
    const entry = this.#serve(topic);
    const before = entry[kind];
    entry[kind] = handler;
    this.hasLimits ||= handler.settings.some(({ limit }) => limit !== undefined);
    if (before === undefined || before === handler) return;
    openLimits(before.settings);
    before.ended();
  }

  /**
   * Removes one of two handlers. @returns false if the topic has no other handler: it must be unregistered, and the
   * handler stays until {@link remove}
   */
  removeOne(topic: string, kind: HandledKind): boolean {
    const entry = this.#topics.get(topic);
    if (entry === undefined) return false;
    const hasOther = entry[kind === "messages" ? "requests" : "messages"] !== undefined;
    if (hasOther) {
      openLimits(entry[kind]?.settings);
      entry[kind] = undefined;
    } else entry.isServed = false;
    return hasOther;
  }

  /** Removes a message iterator after the stop of its peer. The topic stays in the directory. */
  endStream(topic: string, handler: TopicHandler): void {
    const entry = this.#topics.get(topic);
    if (entry?.messages !== handler) return;
    openLimits(handler.settings);
    entry.messages = undefined;
    if (entry.requests === undefined) this.#delete(topic);
  }

  /** Removes all handlers of a topic. */
  remove(topic: string): void {
    openLimits(this.#settingsOf(topic));
    const entry = this.#delete(topic);
    entry?.messages?.ended();
    entry?.requests?.ended();
  }

  handlingOf(topic: string | undefined, headers: Headers | undefined): HandlingSettings {
    if (topic === undefined) return this.defaults;
    return this.#topics.get(topic)?.messages?.settingsOf(headers) ?? this.defaults;
  }

  /** Retry policy of a message, whose headers may name a number of attempts of its own. */
  retryOf(topic: string | undefined, headers: Headers | undefined): RetryPolicy {
    const { retry } = this.handlingOf(topic, headers);
    const given = headers === undefined ? undefined : headerValue(headers, protocolConstants.messageAttemptsHeader);
    if (given === undefined) return retry;
    const attempts = Number(given);
    if (!(Number.isInteger(attempts) && attempts >= 1 && attempts <= queueConstants.maxAttempts)) return retry;
    return { attempts, delayMs: (after) => retry.delayMs(after) };
  }

  /** Limit under which a message starts. */
  limitOf(topic: string, headers: Headers | undefined): ConcurrencyLimit | undefined {
    if (!this.hasLimits) return undefined;
    return this.#pauses.get(topic) ?? this.handlingOf(topic, headers).limit;
  }

  /** True if no message of the topic may start. */
  isPaused(topic: string): boolean {
    return this.hasLimits && this.#pauses.has(topic);
  }

  /** Pauses a topic in this process, or ends that. It stays so across stop and start. @returns false if nothing has changed */
  pauseHere(topic: string, isPaused: boolean): boolean {
    if (isPaused) this.#pausedHere.add(topic);
    else this.#pausedHere.delete(topic);
    return this.#updatePauses();
  }

  /** No message of a topic starts that gets its first handler now, until {@link pauseEverywhere} or {@link firstPause} tells of it. */
  awaitPause(topic: string): void {
    this.#unknown.add(topic);
    this.#updatePauses();
  }

  /** Tells whether a topic is paused in all processes, if nothing has told that yet. @returns false if nothing has changed */
  firstPause(topic: string, isPaused: boolean): boolean {
    return this.#unknown.has(topic) && this.pauseEverywhere(isPaused ? [topic] : [], [topic]);
  }

  /** Sets which of some topics are paused in all processes. @returns false if nothing has changed */
  pauseEverywhere(paused: readonly string[], asked: readonly string[]): boolean {
    const others = this.#pausedEverywhere.filter((topic) => this.serves(topic) && !asked.includes(topic));
    this.#pausedEverywhere = [...others, ...paused];
    for (const topic of asked) this.#unknown.delete(topic);
    return this.#updatePauses();
  }

  #updatePauses(): boolean {
    const paused = new Set([...this.#pausedHere, ...this.#pausedEverywhere, ...this.#unknown]);
    let hasChanged = false;
    for (const [topic, limit] of this.#pauses) {
      if (paused.has(topic)) continue;
      limit.open();
      this.#pauses.delete(topic);
      hasChanged = true;
    }
    for (const topic of paused) {
      if (this.#pauses.has(topic)) continue;
      this.#pauses.set(topic, new ConcurrencyLimit(0));
      this.hasLimits = true;
      hasChanged = true;
    }
    return hasChanged;
  }

  /** Forgets the calls that the last run gave up, and that may still be running. */
  renewLimits(): void {
    if (!this.hasLimits) return;
    for (const [topic, limit] of this.#pauses) this.#pauses.set(topic, limit.renewed());
    for (const topic of this.#topics.keys()) {
      for (const settings of this.#settingsOf(topic)) settings.limit = settings.limit?.renewed();
    }
  }

  /** Limits of the message handlers of a topic; undefined unless each handler has one. */
  limitsOf(topic: string): readonly ConcurrencyLimit[] | undefined {
    const limits: ConcurrencyLimit[] = [];
    for (const { limit } of this.#topics.get(topic)?.messages?.settings ?? []) {
      if (limit === undefined) return undefined;
      limits.push(limit);
    }
    return limits.length > 0 ? limits : undefined;
  }

  /**
   * Number of transactional calls that may run at a time.
   *
   * @param concurrency that of the peer, which is also that of a handler without its own
   */
  transactionsAtOnce(concurrency: number): HandlingCalls {
    let [batches, all, asked] = [0, 0, 0];
    for (const topic of this.#topics.keys()) {
      for (const { transactional, batch, limit } of this.#settingsOf(topic)) {
        if (!transactional) continue;
        if (batch !== undefined) batches += batch.settings.concurrency;
        else {
          all += limit?.max ?? concurrency;
          asked += limit?.max ?? 0;
        }
      }
    }
    const allCalls = batches + Math.min(all, concurrency);
    // Who sets the peer's concurrency asks for it, too.
    const isSet = concurrency !== peerSettingsDefaults.concurrency;
    return { all: allCalls, asked: isSet ? allCalls : batches + Math.min(asked, concurrency) };
  }

  /** Number of messages that the batches of a topic and the next ones can have; 0 if it has no batch handler. */
  batchRoomOf(topic: string): number {
    let room = 0;
    for (const { batch } of this.#topics.get(topic)?.messages?.settings ?? [])
      if (batch !== undefined) room += batch.settings.maxMessages * (batch.settings.concurrency + 1);
    return room;
  }

  /** Calls the handler of a message. @param topic topic of the message; undefined if it has no handler any more */
  handle(topic: ServedTopic | undefined, message: MessageView): unknown {
    if (topic === undefined) throw this.unserved(message.topic);
    if (topic.messages !== undefined) return topic.messages.handle(message);
    throw new Reject(
      `"${this.#peer.name}" answers only requests of "${topic.name}": send a request, or set a handler for its messages`,
    );
  }

  /**
   * Decoded message for a batch handler of its type; undefined if the handler is for all messages of the topic.
   *
   * @throws HawserError `invalid_message`
   */
  decode(topic: string, headers: Headers | undefined, payload: Uint8Array): unknown {
    return this.#topics.get(topic)?.messages?.decode?.(headers, payload);
  }

  /** Error for a topic without a handler. */
  unserved(topic: string): HawserError {
    return new HawserError("unsubscribed", `"${this.#peer.name}" does not handle "${topic}"`);
  }

  #delete(topic: string): ServedTopic | undefined {
    const entry = this.#topics.get(topic);
    this.#topics.delete(topic);
    if (this.#unknown.delete(topic)) this.#updatePauses();
    if (entry === undefined) return undefined;
    entry.isServed = false;
    if (entry.counts !== this.otherCounts) this.otherCounts.add(entry.counts);
    entry.counts = this.otherCounts;
    return entry;
  }

  #serve(topic: string): ServedTopic {
    let entry = this.#topics.get(topic);
    if (entry === undefined) {
      const counts = topic === otherTopic ? this.otherCounts : new HandledCounts();
      entry = { name: topic, messages: undefined, requests: undefined, isServed: true, counts };
      this.#topics.set(topic, entry);
    }
    entry.isServed = true;
    return entry;
  }

  #settingsOf(topic: string): readonly HandlingSettings[] {
    const entry = this.#topics.get(topic);
    return [...(entry?.messages?.settings ?? []), ...(entry?.requests?.settings ?? [])];
  }
}

/** Lets waiting messages leave the limits of handlers that were replaced or removed. */
function openLimits(settings: readonly HandlingSettings[] = []): void {
  for (const { limit } of settings) limit?.open();
}
