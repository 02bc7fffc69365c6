/**
 * Choice of a topic's listener for each message: listeners in the directory take turns, without those known to be down.
 * If none can be reached, listeners that this sender used before are chosen.
 */
import { shared } from "../../../foundation/runtime/index.js";
import type { Listener, Route } from "../../store/index.js";
import type { PeerCounters, SentCounts } from "../../worker/counters.js";
import type { PeerContext } from "../core/context.js";
import type { SenderLink } from "./sender-link.js";

/** Open links by listener name. */
interface OpenLinks {
  get(listenerName: string): SenderLink | undefined;
}

/** Listener of a topic, as a destination. */
export interface Candidate {
  readonly name: string;
  /** Undefined for a listener that is not in the directory; its messages are stored. */
  readonly addr: string | undefined;
  readonly maxMessageBytes: number;
  readonly durable: boolean;
  /** Undefined for a listener without a group. */
  readonly group: string | undefined;
}

/** Creates the candidate for a listener that is not in the directory. */
export function awayCandidate(name: string, maxMessageBytes: number): Candidate {
  return { name, addr: undefined, maxMessageBytes, durable: false, group: undefined };
}

/** Minimum size of the key map at which keys of handled messages are removed. */
const minSweepSize = 1_000;

/** Listeners of one topic, and the turn among them. */
export class TopicRoutes {
  topicId = 0;
  /** Listeners in the directory, sorted by address. */
  listed: readonly Candidate[] = [];
  /** Earlier listeners that are not in the directory. */
  away: readonly Candidate[] = [];
  /** True if ids, listeners and links are known, so that messages can be sent. */
  ready = false;
  /** True after the first read of the catalog. */
  wasRead = false;
  /** True for a topic that this peer serves and has never sent to: its listeners are reported, but it has no routes. */
  isOnlyWatched = false;
  /** True if all listeners in the directory are members of a group. */
  isGroup = false;
  /** Number of sends that wait for the topic; later sends wait behind them to keep the order. */
  waiting = 0;
  tail: Promise<unknown> = Promise.resolve();
  /** Link and place of the last message of each key. */
  readonly #followed = new Map<string, { readonly link: SenderLink; readonly place: number }>();
  /** All candidates by name; a listener with two addresses has its first one. */
  #byName: ReadonlyMap<string, Candidate> = new Map();
  /** Size of the key map at which keys of handled messages are removed. */
  #sweepAt = minSweepSize;
  #turn = 0;
  #lastUsed: string | undefined;

  readonly topic: string;
  readonly #counters: PeerCounters;
  readonly #links: OpenLinks;
  #counts: SentCounts | undefined;
  /**
   * Reads the topic from the catalog, one query at a time so that results cannot overtake each other. When the promise
   * resolves, the listeners are stored as routes of this sender. @throws HawserError `store_failed`
   */
  readonly load: () => Promise<void>;
  /**
   * Reads the topic in the background. Never rejects. Any login can send notifications of changes without limit: those
   * that arrive during one query share the next one.
   */
  readonly reload: () => Promise<void>;

  constructor(
    topic: string,
    { counters, logger }: Pick<PeerContext, "counters" | "logger">,
    links: OpenLinks,
    read: () => Promise<void>,
  ) {
    this.topic = topic;
    this.#counters = counters;
    this.#links = links;
    this.load = shared(read);
    this.reload = shared(() =>
      this.load().catch((err) => {
        logger.debug({ err, topic }, "could not read the listeners of a topic; the next poll retries");
      }),
    );
  }

  /**
   * Counts of the topic. Only read if the topic has listeners, because the first read uses up one of the few labels.
   */
  get counts(): SentCounts {
    this.#counts ??= this.#counters.sentTo(this.topic);
    return this.#counts;
  }

  /** Replaces the listeners by those in the catalog. */
  update(listeners: readonly Listener[], routes: readonly Route[]): void {
    this.listed = listeners.map((listener) => ({ ...listener }));
    this.isGroup = listeners.length > 0 && listeners.every(({ group }) => group !== undefined);
    const names = new Set(listeners.map(({ name }) => name));
    this.away = routes
      .filter(({ name }) => !names.has(name))
      .map(({ name, maxMessageBytes }) => awayCandidate(name, maxMessageBytes));
    this.#byName = new Map([...this.all].reverse().map((candidate) => [candidate.name, candidate]));
  }

  get isEmpty(): boolean {
    return this.listed.length === 0 && this.away.length === 0;
  }

  get all(): readonly Candidate[] {
    return this.away.length === 0 ? this.listed : [...this.listed, ...this.away];
  }

  /**
   * Next listener in turn that is connected, or else that may be reached, or else the one used last. Whether there is anybody at an
   * address shows when it is dialled: what waits for that may end in the store of one that never comes.
   *
   * @param key key of the message: messages with the same key go to the same listener
   * @returns undefined if no listener can be reached and none was used before
   */
  choose(key?: string): Candidate | undefined {
    if (key !== undefined) return this.#listenerOfKey(key);
    const next = this.#nextInTurn(true) ?? this.#nextInTurn(false);
    if (next !== undefined) this.#lastUsed = next.name;
    return next ?? (this.#lastUsed === undefined ? undefined : this.#byName.get(this.#lastUsed));
  }

  #nextInTurn(connected: boolean): Candidate | undefined {
    const { listed } = this;
    for (let tried = 0; tried < listed.length; tried++) {
      const candidate = listed[(this.#turn + tried) % listed.length] as Candidate;
      const link = this.#links.get(candidate.name);
      if (!this.#isUp(link) || (connected && link?.isConnected !== true)) continue;
      this.#turn += tried + 1;
      return candidate;
    }
    return undefined;
  }

  /** Link of the least busy group member that has room for a message of this length; equal members take turns. */
  chooseWithRoom(bytes: number, now: number): SenderLink | undefined {
    const hasRoom = (link: SenderLink): boolean => link.hasRoom(now) && link.takes(bytes);
    return this.#chooseLeast(hasRoom, ({ inFlight }) => inFlight);
  }

  /** Link of the least busy group member whose limits permit a message of this length; equal members take turns. */
  chooseIdlest(bytes: number): SenderLink | undefined {
    const takesIt = (link: SenderLink): boolean => link.isOpen && link.takes(bytes);
    return this.#chooseLeast(takesIt, ({ inFlight }) => inFlight);
  }

  /** Maximum payload that a listener of the topic accepts. */
  maxMessageBytes(): number {
    return this.all.reduce((most, { name, maxMessageBytes }) => {
      return Math.max(most, this.#links.get(name)?.dial.maxMessageBytes ?? maxMessageBytes);
    }, 0);
  }

  /** True if a message would be handled soon. */
  #isUp(link: SenderLink | undefined): boolean {
    return link?.isDown !== true;
  }

  #chooseLeast(mayBe: (link: SenderLink) => boolean, costOf: (link: SenderLink) => number): SenderLink | undefined {
    const { listed } = this;
    let least: SenderLink | undefined;
    let leastCost = Number.POSITIVE_INFINITY;
    let place = 0;
    for (let tried = 0; tried < listed.length && leastCost > 0; tried++) {
      const link = this.#links.get(listed[(this.#turn + tried) % listed.length]!.name);
      if (link === undefined || !mayBe(link)) continue;
      const cost = costOf(link);
      if (cost < leastCost) [least, leastCost, place] = [link, cost, tried];
    }
    if (least === undefined) return undefined;
    this.#turn += place + 1;
    this.#lastUsed = least.listenerName;
    return least;
  }

  /**
   * Listener for the next attempt of a request: the next in turn among those that were not tried, or the least busy one
   * in a group. Reachable listeners come first.
   */
  chooseUnasked(asked: ReadonlySet<string>): Candidate | undefined {
    const { listed } = this;
    if (this.isGroup) {
      const isFree = (link: SenderLink): boolean => !asked.has(link.listenerName) && link.isOpen;
      const free = this.#chooseLeast(isFree, ({ inFlight }) => inFlight);
      if (free !== undefined) return this.#byName.get(free.listenerName);
    }
    let down: Candidate | undefined;
    for (let tried = 0; tried < listed.length; tried++) {
      const candidate = listed[this.#turn % listed.length] as Candidate;
      this.#turn += 1;
      if (asked.has(candidate.name)) continue;
      if (this.#isUp(this.#links.get(candidate.name))) return candidate;
      down ??= candidate;
    }
    return down;
  }

  /** Records the link of a message with a key, so that later messages of the key follow it until it is handled. */
  follow(key: string, link: SenderLink): void {
    this.#followed.set(key, { link, place: link.lastPlace });
    if (this.#followed.size < this.#sweepAt) return;
    for (const [each, { link: taken, place }] of this.#followed) {
      if (taken.isClosed || taken.hasHandled(place)) this.#followed.delete(each);
    }
    this.#sweepAt = Math.max(minSweepSize, 2 * this.#followed.size);
  }

  /**
   * Listener of a key: the one that has an unhandled message of the key, or else the choice of a rendezvous hash among
   * all known listeners, including absent ones.
   */
  #listenerOfKey(key: string): Candidate | undefined {
    const before = this.#followed.get(key);
    if (before !== undefined && !before.link.isClosed && !before.link.hasHandled(before.place)) {
      const same = this.#byName.get(before.link.listenerName);
      if (same !== undefined) return same;
    }
    let most: Candidate | undefined;
    let mostHash = -1;
    const ofKey = hashedOn(hashBasis, `${key} `);
    for (const candidate of this.all) {
      const hash = mixed(hashedOn(ofKey, candidate.name));
      if (hash > mostHash) [most, mostHash] = [candidate, hash];
    }
    return most;
  }

  /** Records the candidate as the one used last. */
  use({ name }: Candidate): void {
    this.#lastUsed = name;
  }
}

/** Offset basis of 32-bit FNV-1a. */
const hashBasis = 0x811c9dc5;

/** Continues an FNV-1a hash with a string, so that the common prefix of all candidates is hashed once. */
function hashedOn(hash: number, text: string): number {
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return hash;
}

/** Mixes the bits of an FNV-1a hash, because its upper bits hardly depend on the last characters of the input. */
function mixed(hash: number): number {
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  return (hash ^ (hash >>> 13)) >>> 0;
}
