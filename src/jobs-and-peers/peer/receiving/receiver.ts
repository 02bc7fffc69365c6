/** Handlers of a process, as the sources of its messages see them. */
import type { Quarantine } from "../../channel/index.js";
import type { CursorCommitter } from "../../store/index.js";
import type { HandlingContext, PeerContext } from "../core/context.js";
import type { ChannelCalls } from "./channel-calls.js";
import type { Dispatcher, SlicedWork } from "./dispatcher.js";
import type { HandlerCalls } from "./handler-call.js";
import type { RequestCalls } from "./request-calls.js";
import type { TopicHandlers } from "./topic-handlers.js";

/** Handlers of a peer or a worker. */
export interface HandlingHost {
  readonly context: HandlingContext;
  readonly handlers: TopicHandlers;
  readonly calls: HandlerCalls;
  readonly dispatcher: Dispatcher;
  readonly quarantine: Quarantine<SlicedWork>;
  /** True while no handler may start. */
  readonly isPaused: boolean;
  /** Called when topics were paused or resumed in all processes. */
  handlersChanged(): void;
}

/** Receiving side of a running peer. */
export interface Receiver extends HandlingHost {
  readonly context: PeerContext;
  readonly channelCalls: ChannelCalls;
  readonly requestCalls: RequestCalls;
  readonly committer: CursorCommitter;
  /** Closes and removes the link of a channel that belongs to another listener. */
  closeLink(channelId: number): void;
}
