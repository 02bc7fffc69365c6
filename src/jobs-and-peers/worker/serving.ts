/** Sets and ends the handlers of a peer or worker, and tells its run which topics it serves. */
import type { DescMessage } from "@bufbuild/protobuf";
import { HawserError } from "../../foundation/errors/index.js";
import { checkSchemaTopic, hasSchema, isSchema } from "../../foundation/payloads/index.js";
import type { Subscription } from "../../foundation/runtime/index.js";
import type { HandlingSettings, Membership } from "../handlers/handling-settings.js";
import type { Handler } from "../handlers/message.js";
import {
  type HandledKind,
  plainHandler,
  schemaHandler,
  type TopicHandler,
  type TopicHandlers,
} from "../handlers/topic-handlers.js";
import { checkServable, type Destination } from "../queue/enqueue/index.js";
import { loadingFor } from "../queue/protobuf.js";
import type { Run, StartReminder } from "./lifecycle.js";
import { type HandledType, TypedHandlers, topicOfPeers } from "./typed-handlers.js";

/** Handler as the overload implementations of a peer see it; the overloads declare its real arguments. */
export type UserHandler = (first: never, second: never) => unknown;

/** Running peer or worker, as its topics change. */
interface ServingRun {
  /** Membership, which all topics share. */
  readonly membership: Membership;
  handlersChanged(): void;
  /** Takes up a topic, or updates its durability. */
  subscribe(topic: string): Promise<void>;
  /** Gives up a topic. */
  unsubscribe(topic: string): Promise<void>;
}

export class Serving {
  /** Topics whose handlers were stopped while the peer was not running. */
  readonly unsubscribed = new Set<string>();
  readonly #kind: "peer" | "worker";
  readonly #handlers: TopicHandlers;
  readonly #run: Readonly<Run<ServingRun>>;
  readonly #startReminder: StartReminder;

  constructor(
    kind: "peer" | "worker",
    handlers: TopicHandlers,
    { run, startReminder }: { readonly run: Readonly<Run<ServingRun>>; readonly startReminder: StartReminder },
  ) {
    this.#kind = kind;
    this.#handlers = handlers;
    this.#run = run;
    this.#startReminder = startReminder;
  }

  /** Sets the handler of the messages of a topic, or of one type. */
  async handle(to: Destination, handler: UserHandler, settings: HandlingSettings): Promise<Subscription> {
    const loading = loadingFor(to);
    if (loading !== undefined) await loading;
    if (!hasSchema(to)) return await this.handleAll(to, "messages", handler, settings);
    if (isSchema(to)) return await this.#handleType(topicOfPeers(to), to, handler, settings);
    checkSchemaTopic(to);
    return await this.#handleWith(to.topic, "messages", settings, (ended) =>
      schemaHandler(to, handler, settings, ended),
    );
  }

  /** Sets the handler of all messages or requests of a topic. */
  async handleAll(
    topic: string,
    kind: HandledKind,
    handler: UserHandler,
    settings: HandlingSettings,
  ): Promise<Subscription> {
    const make = (ended: () => void) => plainHandler(handler as Handler, settings, ended);
    return await this.#handleWith(topic, kind, settings, make);
  }

  async #handleWith(
    topic: string,
    kind: HandledKind,
    settings: HandlingSettings,
    make: (ended: () => void) => TopicHandler,
  ): Promise<Subscription> {
    const subscription = subscriptionOf(topic, async () => {
      if (this.#handlers.handlerOf(topic, kind) === own) await this.#stop(topic, kind);
    });
    const own = make(subscription.ended);
    await this.serve(topic, settings, () => this.#handlers.set(topic, kind, own));
    return subscription;
  }

  async #handleType(
    topic: string,
    schema: DescMessage,
    handler: UserHandler,
    settings: HandlingSettings,
  ): Promise<Subscription> {
    const subscription = subscriptionOf(topic, async () => {
      const types = this.#handlers.handlerOf(topic, "messages");
      if (!(types instanceof TypedHandlers) || !types.has(own)) return;
      if (types.size === 1) return await this.#stop(topic, "messages");
      types.remove(own);
      this.#run.running?.handlersChanged();
    });
    const own: HandledType = { schema, settings, handler, ended: subscription.ended };
    await this.serve(topic, settings, () => {
      const types = this.#typesOf(topic);
      types.add(own);
      this.#handlers.set(topic, "messages", types);
    });
    return subscription;
  }

  /**
   * Sets a handler, and registers its topic.
   *
   * @param set sets the handler of the topic
   */
  async serve(topic: string, settings: HandlingSettings, set: () => void): Promise<void> {
    checkServable(topic);
    // A start in progress has already read the topics to register: a further topic waits for its end.
    if (this.#run.state === "starting") await this.#run.transition.catch(() => undefined);
    this.#checkMembership(topic, settings);
    const handlers = this.#handlers;
    const [wasServed, wasDurable] = [handlers.serves(topic), handlers.isDurable(topic)];
    const { running, state } = this.#run;
    if (!wasServed && state === "running") handlers.awaitPause(topic);
    set();
    this.#startReminder.expectStart();
    running?.handlersChanged();
    this.unsubscribed.delete(topic);
    if (state !== "running" || (wasServed && wasDurable === handlers.isDurable(topic))) return;
    try {
      await running?.subscribe(topic);
    } catch (error) {
      if (!wasServed) this.#remove(topic);
      throw error;
    }
  }

  /** Removes a handler. If it is the last one of the topic, the topic is removed from the directory, too. */
  async #stop(topic: string, kind: HandledKind): Promise<void> {
    if (this.#run.state === "starting") await this.#run.transition.catch(() => undefined);
    const { running, state } = this.#run;
    if (this.#handlers.removeOne(topic, kind)) return running?.handlersChanged();
    if (state === "running") await running?.unsubscribe(topic);
    else this.unsubscribed.add(topic);
    this.#remove(topic);
  }

  #remove(topic: string): void {
    this.#handlers.remove(topic);
    this.#run.running?.handlersChanged();
  }

  /** @throws HawserError `already_running` if the topic has a handler for messages of all types */
  #typesOf(topic: string): TypedHandlers {
    const known = this.#handlers.handlerOf(topic, "messages");
    if (known === undefined) return new TypedHandlers(topic);
    if (known instanceof TypedHandlers) return known;
    throw new HawserError(
      "already_running",
      `the topic "${topic}" has a handler for messages of all types; stop that first, or handle each type by its schema`,
    );
  }

  /** @throws HawserError `invalid_argument` if another topic of the peer has a different group or takeover time */
  #checkMembership(topic: string, { group, takeoverMs }: HandlingSettings): void {
    const { running } = this.#run;
    if (running === undefined && this.#handlers.isEmpty) return;
    const own = running?.membership ?? this.#handlers.membership;
    const refuseOther = (option: string, given: unknown, other: unknown): void => {
      if (given === other) return;
      const shown = (value: unknown) => (value === undefined ? "none" : JSON.stringify(value));
      const remedy = running ? "give it under defaults, or handle the topic before start" : "give it under defaults";
      throw new HawserError(
        "invalid_argument",
        `${option} ${shown(given)} of "${topic}": the other topics of the ${this.#kind} have ${shown(other)}, but all topics of a ${this.#kind} must have the same; ${remedy}, or use two ${this.#kind}s`,
      );
    };
    refuseOther("group", group, own.group);
    refuseOther("takeoverMs", takeoverMs, own.takeoverMs);
  }
}

/**
 * Creates the subscription of a handler. It ends by `stop`, or when another call replaces the handler. When the last
 * handler of a topic ends, the peer unregisters the topic: sends to it fail with `no_listener`, and messages that still
 * arrive become dead letters. Running handlers continue. `stop` can be called again after a rejection.
 */
function subscriptionOf(topic: string, stop: () => Promise<void>): Subscription & { readonly ended: () => void } {
  let ended!: () => void;
  const closed = new Promise<void>((resolve) => {
    ended = resolve;
  });
  const stopAndEnd = () => stop().then(ended);
  return { topics: [topic], closed, ended, stop: stopAndEnd, [Symbol.asyncDispose]: stopAndEnd };
}

/** Arguments of a call whose options may be left out. @throws HawserError as {@link checkHandler} */
export function optionsAndHandler<Options extends object>(
  to: Destination,
  given: Options | UserHandler | undefined,
  more: UserHandler | undefined,
): [options: Options, handler: UserHandler] {
  const [options = {}, handler] = typeof given === "function" && more === undefined ? [{}, given] : [given, more];
  checkHandler(to, options, handler);
  return [options as Options, handler];
}

/** @throws HawserError `invalid_argument` for arguments that the overloads exclude */
export function checkHandler(
  to: Destination,
  options: object,
  handler: UserHandler | undefined,
): asserts handler is UserHandler {
  if (typeof to === "object" && !hasSchema(to)) {
    const remedy = "give a topic, or a message schema that protoc-gen-es generated, or { topic, schema }";
    throw new HawserError(
      "invalid_argument",
      `a handler of ${to === null ? "null" : "an object that is no schema"}: ${remedy}`,
    );
  }
  if (typeof options !== "function" && typeof handler === "function") return;
  const what = isSchema(to) ? to.typeName : hasSchema(to) ? to.topic : to;
  const order = typeof options === "function" ? "; options come before it" : "";
  const given = typeof options === "function" ? "not the last argument" : typeof handler;
  throw new HawserError("invalid_argument", `the handler of "${what}" is ${given}; give a function${order}`);
}
