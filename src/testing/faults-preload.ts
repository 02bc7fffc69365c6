/**
 * Loaded before a program that is started with faults ({@link Faults}): gives its handlers of peers these faults.
 */
import { type Message, Peer } from "../peer/index.js";
import { type Faults, faultsVariable, twice } from "./faults.js";

const faults = JSON.parse(process.env[faultsVariable] ?? "{}") as Faults;
let handled = 0;

function withFaults<Args extends readonly unknown[], Result>(
  handler: (...args: Args) => Result,
): (...args: Args) => Promise<Awaited<Result>> {
  const again = faults.twice ? twice(handler) : handler;
  return async (...args): Promise<Awaited<Result>> => {
    try {
      return await again(...args);
    } finally {
      onHandled();
    }
  };
}

/** No promise has told the peer yet. */
function onHandled(): void {
  handled++;
  if (handled === faults.killAfterHandler) process.kill(process.pid, "SIGKILL");
}

const { run, subscribe, on, messages } = Peer.prototype;
/** The peer subscribes for a typed handler, which has the faults itself. */
let isTyped = false;

Peer.prototype.run = function (this: Peer, handler) {
  return run.call(this, handler && withFaults(handler));
};

Peer.prototype.subscribe = function (this: Peer, topic, handler) {
  return subscribe.call(this, topic, handler && !isTyped ? withFaults(handler) : handler);
};

Peer.prototype.on = function (this: Peer, event: unknown, listener: (...args: unknown[]) => unknown) {
  const onAny = on as (this: Peer, event: unknown, listener: unknown) => unknown;
  if (typeof event === "string") return onAny.call(this, event, listener);
  isTyped = true;
  try {
    return onAny.call(this, event, withFaults(listener));
  } finally {
    isTyped = false;
  }
} as Peer["on"];

Peer.prototype.messages = function (this: Peer) {
  const loop = messages.call(this);
  const next = loop.next.bind(loop);
  let isHandling = false;
  // Asking for the next one finishes the one before.
  loop.next = async (): Promise<IteratorResult<Message>> => {
    if (isHandling) onHandled();
    const result = await next();
    isHandling = !result.done;
    return result;
  };
  return loop;
};
