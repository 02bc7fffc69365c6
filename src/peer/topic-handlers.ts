/** The user's handlers of a peer, by topic, and the settings of each. */
import type { BatchSettings } from "../../generated/ts/settings/peer.js";
import type { Headers } from "../channel/index.js";
import { HawserError } from "../errors/index.js";
import type { Subscription } from "../runtime/index.js";
import type { BatchHandling, HandlingSettings } from "./handling-settings.js";
import { BatchView, type Handler, type Origin, type Reply, type TransactionalMessage } from "./message.js";

export type { Subscription } from "../runtime/index.js";

/** What handles the messages of a topic. */
export interface TopicHandler {
  /** How a message with these headers is handled; undefined: as the peer has it. */
  settingsOf(headers: Headers | undefined): HandlingSettings | undefined;
  handle(message: TransactionalMessage): unknown;
  /** It has been replaced, or taken away. */
  ended(): void;
}

/**
 * A {@link Subscription} that ends once: by `stop` or `unsubscribe`, or because another call has taken its place. With the
 * last type of a topic the peer serves the topic no more. Running handlers go on. `stop` may be called again after a rejection.
 */
export class HandlerSubscription implements Subscription {
  readonly topics: readonly string[];
  readonly closed: Promise<void>;
  ended!: () => void;
  readonly #stop: () => Promise<void>;

  constructor(topic: string, stop: () => Promise<void>) {
    this.topics = [topic];
    this.closed = new Promise((resolve) => {
      this.ended = resolve;
    });
    this.#stop = stop;
  }

  async stop(): Promise<void> {
    await this.#stop();
    this.ended();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** A handler for all messages of a topic. @param settings undefined: as the peer has it */
export function plainHandler(
  handle: Handler,
  settings: HandlingSettings | undefined,
  ended: () => void = () => undefined,
): TopicHandler {
  return { settingsOf: () => settings, handle, ended };
}

/** @param decode what the handler gets of a message in place of the message itself */
export function batchHandling(
  settings: BatchSettings,
  handler: (values: never, batch: never) => unknown,
  decode?: (message: TransactionalMessage) => unknown,
): BatchHandling {
  return {
    settings,
    decode: (message) => decode?.(message),
    async handle(messages, values, fail) {
      const batch = new BatchView(messages, fail);
      try {
        await handler((decode ? values : messages) as never, batch as never);
      } finally {
        batch.end();
      }
    },
  };
}

export class TopicHandlers {
  /** Topics that the peer serves beyond its source topic. */
  readonly subscriptions = new Set<string>();
  /** That of `run`: for topics that have none of their own. */
  others: Handler | undefined;
  readonly #topics = new Map<string, TopicHandler>();

  readonly #peer: Origin;
  readonly #usual: HandlingSettings;
  readonly reply: Reply;

  /** @param usual how messages are handled of which nothing else was said */
  constructor(peer: Origin, usual: HandlingSettings, reply: Reply) {
    this.#peer = peer;
    this.#usual = usual;
    this.reply = reply;
  }

  /** Whether the peer serves a topic now. */
  serves(topic: string): boolean {
    return topic === this.#peer.topic || this.subscriptions.has(topic);
  }

  get isEmpty(): boolean {
    return this.others === undefined && this.#topics.size === 0;
  }

  get(topic: string): TopicHandler | undefined {
    return this.#topics.get(topic);
  }

  /** Takes the place of the handler of before; undefined: the topic has none any more. */
  set(topic: string, handler: TopicHandler | undefined): void {
    const before = this.#topics.get(topic);
    if (handler === undefined) this.#topics.delete(topic);
    else this.#topics.set(topic, handler);
    if (before !== handler) before?.ended();
  }

  handlingOf(topic: string | undefined, headers: Headers | undefined): HandlingSettings {
    if (topic === undefined || this.#topics.size === 0) return this.#usual;
    return this.#topics.get(topic)?.settingsOf(headers) ?? this.#usual;
  }

  handle(message: TransactionalMessage): unknown {
    const handler = this.#topics.size === 0 ? undefined : this.#topics.get(message.to);
    if (handler !== undefined) return handler.handle(message);
    if (this.others !== undefined) return this.others(message);
    const remedy = "give one to handle() with the topic, or to run(), and retry the dead letter";
    throw new HawserError(
      "unsubscribed",
      `"${this.#peer.name}" has no handler for messages of "${message.to}"; ${remedy}`,
    );
  }
}
