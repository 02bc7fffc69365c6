/** Receiving side of a running peer, as its links see it. */
import type { Quarantine } from "../../channel/index.js";
import type { CursorCommitter } from "../../store/index.js";
import type { PeerContext } from "../core/context.js";
import type { ChannelCalls } from "./channel-calls.js";
import type { Dispatcher, SlicedWork } from "./dispatcher.js";
import type { HandlerCalls } from "./handler-call.js";
import type { RequestCalls } from "./request-calls.js";
import type { TopicHandlers } from "./topic-handlers.js";

export interface Receiver {
  readonly context: PeerContext;
  readonly handlers: TopicHandlers;
  readonly calls: HandlerCalls;
  readonly channelCalls: ChannelCalls;
  readonly requestCalls: RequestCalls;
  readonly dispatcher: Dispatcher;
  readonly quarantine: Quarantine<SlicedWork>;
  readonly committer: CursorCommitter;
  /** True while no handler may start. */
  readonly isPaused: boolean;
  /** Called when topics were paused or resumed in all processes. */
  handlersChanged(): void;
  /** Closes and removes the link of a channel that belongs to another listener. */
  closeLink(channelId: number): void;
}
