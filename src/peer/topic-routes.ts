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
  /** Its link, as it was looked up last. */
  link?: SenderLink | undefined;
}

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
  /** Sends that wait for that; those behind them wait, too, so that their order stays. */
  waiting = 0;
  tail: Promise<unknown> = Promise.resolve();
  #turn = 0;
  #lastUsed: string | undefined;

  readonly topic: string;
  /**
   * Reads what the catalog has of the topic, one reading at a time, so that none overtakes another: a caller that waited for
   * one finds its routes remembered. @throws StoreError `store_failed`
   */
  readonly load: () => Promise<void>;

  constructor(topic: string, read: () => Promise<void>) {
    this.topic = topic;
    this.load = shared(read);
  }

  /** Takes over what the catalog says. */
  update(listeners: readonly Listener[], routes: readonly Route[]): void {
    this.listed = listeners.map(({ name, addr, maxMessageBytes, durable }) => ({
      name,
      addr,
      maxMessageBytes,
      durable,
    }));
    const names = new Set(listeners.map(({ name }) => name));
    this.away = routes
      .filter(({ name }) => !names.has(name))
      .map(({ name, maxMessageBytes }) => ({ name, addr: undefined, maxMessageBytes, durable: false }));
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
   * @returns undefined when no listener can be reached and none was used before
   */
  choose(links: OpenLinks): Candidate | undefined {
    const { listed } = this;
    for (let tried = 0; tried < listed.length; tried++) {
      const candidate = listed[this.#turn % listed.length] as Candidate;
      this.#turn += 1;
      if (linkOf(candidate, links)?.isDown !== true) {
        this.#lastUsed = candidate.name;
        return candidate;
      }
    }
    const last = this.all.find(({ name }) => name === this.#lastUsed);
    if (last !== undefined) linkOf(last, links);
    return last;
  }

  /** The candidate is the one last used from now on. */
  use({ name }: Candidate): void {
    this.#lastUsed = name;
  }
}

/** A candidate's link, if it is open. One that was closed has perhaps been opened anew. */
function linkOf(candidate: Candidate, links: OpenLinks): SenderLink | undefined {
  if (candidate.link === undefined || candidate.link.isClosed) candidate.link = links.get(candidate.name);
  return candidate.link;
}
