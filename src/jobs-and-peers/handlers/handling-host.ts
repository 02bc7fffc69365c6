/** Handlers of a process, as the sources of its messages see them: the worker of the queue, and the channels of a peer. */

import type { Dispatcher, SlicedWork } from "./dispatcher.js";
import type { HandlerCalls } from "./handler-call.js";
import type { HandlingContext } from "./handling-context.js";
import type { Quarantine } from "./limits/quarantine.js";
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
