/**
 * Which listener of a topic gets a message: the directory's listeners in turn, those known to be down left out, and
 * the ones this sender has met before when none can be reached.
 */
import { shared } from "../runtime/index.js";
import type { Listener, Route } from "../store/index.js";
import type { SenderLink } from "./sender-link.js";

/** The links that are open, by the names of their listeners. */
interface OpenLinks {
  get(listenerName: string): SenderLink | undefined;
}

/** A listener of a topic as the router knows it. */
export interface Candidate {
  readonly name: string;
  /** Undefined when it is not in the directory: then it is only stored for. */
  readonly addr: string | undefined;
  readonly maxMessageBytes: number;
  readonly durable: boolean;
  /** The group that it is a member of; undefined: of none. */
  readonly group: string | undefined;
  /** Its link, as it was looked up last. */
  link?: SenderLink | undefined;
}

/** A listener that is not in the directory. */
export function awayCandidate(name: string, maxMessageBytes: number): Candidate {
  return { name, addr: undefined, maxMessageBytes, durable: false, group: undefined };
}

const leastSweep = 1_000;

/** The listeners of one topic and whose turn it is. */
export class TopicRoutes {
  topicKey = 0;
  /** In the directory, in the order of their addresses. */
  listed: readonly Candidate[] = [];
  /** Met before, and not in the directory now. */
  away: readonly Candidate[] = [];
  /** Everything is known that a send needs: keys, listeners, links. */
  ready = false;
  /** The catalog was read once. */
  wasRead = false;
  /** This peer serves the topic and has never sent to it: it hears of the others, and has no routes to them. */
  isOnlyWatched = false;
  /** All that the directory has are members of a group. */
  isGroup = false;
  /** Sends that wait for that; those behind them wait, too, so that their order stays. */
  waiting = 0;
  tail: Promise<unknown> = Promise.resolve();
  /** By key, the link that its last message went over, and the message's place there. */
  readonly #followed = new Map<string, { readonly link: SenderLink; readonly place: number }>();
  /** All of them; of a listener that has two addresses the first one. */
  #byName: ReadonlyMap<string, Candidate> = new Map();
  /** At this size the keys whose messages are handled are forgotten. */
  #sweepAt = leastSweep;
  #turn = 0;
  #lastUsed: string | undefined;

  readonly topic: string;
  /**
   * Reads what the catalog has of the topic, one reading at a time, so that none overtakes another: a caller that waited for
   * one finds its routes remembered. @throws HawserError `store_failed`
   */
  readonly load: () => Promise<void>;

  constructor(topic: string, read: () => Promise<void>) {
    this.topic = topic;
    this.load = shared(read);
  }

  /** Takes over what the catalog says. */
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
   * Whose turn it is among those that can be reached, its link looked up; else the one last used.
   *
   * @param key of the message: those of one key go to one listener
   * @returns undefined when no listener can be reached and none was used before
   */
  choose(links: OpenLinks, key?: string): Candidate | undefined {
    if (key !== undefined) return this.#ofKey(links, key);
    const { listed } = this;
    for (let tried = 0; tried < listed.length; tried++) {
      const candidate = listed[this.#turn % listed.length] as Candidate;
      this.#turn += 1;
      if (this.#isUp(linkOf(candidate, links))) {
        this.#lastUsed = candidate.name;
        return candidate;
      }
    }
    const last = this.#lastUsed === undefined ? undefined : this.#byName.get(this.#lastUsed);
    if (last !== undefined) linkOf(last, links);
    return last;
  }

  /** Of a group: the link of the member with room for a message of this length that has the least to do, else in turn. */
  chooseWithRoom(links: OpenLinks, bytes: number, now: number): SenderLink | undefined {
    const hasRoom = (link: SenderLink): boolean => link.readiness === "now" && link.hasRoom(now) && link.takes(bytes);
    return this.#chooseLeast(links, hasRoom, ({ underWay }) => underWay);
  }

  /** Of a group: the link of the member that takes a message of this length and has the least to do, else in turn. */
  chooseIdlest(links: OpenLinks, bytes: number): SenderLink | undefined {
    const takesIt = (link: SenderLink): boolean => link.readiness !== "no" && link.takes(bytes);
    return this.#chooseLeast(links, takesIt, ({ underWay }) => underWay);
  }

  /** Of a group: the link of the member that would be done first with one more message of this length. */
  chooseSoonest(links: OpenLinks, bytes: number, now: number): SenderLink | undefined {
    return this.#chooseLeast(
      links,
      (link) => this.#isUp(link) && link.takes(bytes),
      // One that has to work off what is stored comes last.
      (link) => (link.readiness === "no" ? Number.MAX_VALUE : link.timeForMore(now)),
    );
  }

  /** Of a group: whether a member takes messages over its connection, or perhaps soon. */
  mayHaveRoom(links: OpenLinks): boolean {
    return this.listed.some((candidate) => (linkOf(candidate, links)?.readiness ?? "no") !== "no");
  }

  /** Of a group: whether a member can be reached. */
  isReachable(links: OpenLinks): boolean {
    return this.listed.some((candidate) => {
      const link = linkOf(candidate, links);
      return link !== undefined && this.#isUp(link);
    });
  }

  /** The greatest payload that any of the listeners takes. */
  maxMessageBytes(links: OpenLinks): number {
    return this.all.reduce((most, { name, maxMessageBytes }) => {
      return Math.max(most, links.get(name)?.dial.maxMessageBytes ?? maxMessageBytes);
    }, 0);
  }

  /** Whether a message would soon be handled there. Whoever has taken the channel over need not serve this topic, too. */
  #isUp(link: SenderLink | undefined): boolean {
    if (link === undefined) return true;
    if (link.isDown) return false;
    const { dial } = link;
    return !dial.isHandedOver || this.listed.some(({ name }) => name === dial.ownerName);
  }

  #chooseLeast(
    links: OpenLinks,
    mayBe: (link: SenderLink) => boolean,
    costOf: (link: SenderLink) => number,
  ): SenderLink | undefined {
    const { listed } = this;
    let least: SenderLink | undefined;
    let leastCost = Number.POSITIVE_INFINITY;
    let place = 0;
    for (let tried = 0; tried < listed.length && leastCost > 0; tried++) {
      const candidate = listed[(this.#turn + tried) % listed.length] as Candidate;
      const link = linkOf(candidate, links);
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
   * Whom to ask next: whose turn it is among those in the directory that were not asked, in a group the one with the least
   * to do; first one that can be reached.
   */
  chooseUnasked(links: OpenLinks, asked: ReadonlySet<string>): Candidate | undefined {
    const { listed } = this;
    if (this.isGroup) {
      const isFree = (link: SenderLink): boolean => !asked.has(link.listenerName) && link.readiness !== "no";
      const free = this.#chooseLeast(links, isFree, ({ underWay }) => underWay);
      if (free !== undefined) return listed.find(({ name }) => name === free.listenerName);
    }
    let down: Candidate | undefined;
    for (let tried = 0; tried < listed.length; tried++) {
      const candidate = listed[this.#turn % listed.length] as Candidate;
      this.#turn += 1;
      if (asked.has(candidate.name)) continue;
      if (this.#isUp(linkOf(candidate, links))) return candidate;
      down ??= candidate;
    }
    return down;
  }

  /** A message with a key was sent over a link: further ones of its key follow it until it is handled. */
  follow(key: string, link: SenderLink): void {
    this.#followed.set(key, { link, place: link.lastPlace });
    if (this.#followed.size < this.#sweepAt) return;
    for (const [each, { link: taken, place }] of this.#followed) {
      if (taken.isClosed || taken.hasHandled(place)) this.#followed.delete(each);
    }
    this.#sweepAt = Math.max(leastSweep, 2 * this.#followed.size);
  }

  /**
   * The listener that a key belongs to, by rendezvous hash, among all that are known: also one that is away. As long as one
   * that had a message of the key has not handled it, that one.
   */
  #ofKey(links: OpenLinks, key: string): Candidate | undefined {
    const before = this.#followed.get(key);
    if (before !== undefined && !before.link.isClosed && !before.link.hasHandled(before.place)) {
      const same = this.#byName.get(before.link.listenerName);
      if (same !== undefined) {
        linkOf(same, links);
        return same;
      }
    }
    let most: Candidate | undefined;
    let mostHash = -1;
    const ofKey = hashedOn(hashBasis, `${key} `);
    for (const candidate of this.all) {
      const hash = mixed(hashedOn(ofKey, candidate.name));
      if (hash > mostHash) [most, mostHash] = [candidate, hash];
    }
    if (most !== undefined) linkOf(most, links);
    return most;
  }

  /** The candidate is the one last used from now on. */
  use({ name }: Candidate): void {
    this.#lastUsed = name;
  }
}

/** Of FNV-1a with 32 bits. */
const hashBasis = 0x811c9dc5;

/** FNV-1a goes on with a text: what all candidates have in common is hashed once. */
function hashedOn(hash: number, text: string): number {
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return hash;
}

/** Its upper bits hardly depend on the last characters. */
function mixed(hash: number): number {
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  return (hash ^ (hash >>> 13)) >>> 0;
}

/** A candidate's link, if it is open. One that was closed has perhaps been opened anew. */
function linkOf(candidate: Candidate, links: OpenLinks): SenderLink | undefined {
  if (candidate.link === undefined || candidate.link.isClosed) candidate.link = links.get(candidate.name);
  return candidate.link;
}
