/**
 * Preload module of a program that is started with faults ({@link Faults}): applies them to the program's peer
 * handlers.
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

/** Kills the program after the configured handler, before any promise reports to the peer. */
function onHandled(): void {
  handled++;
  if (handled === faults.killAfterHandler) process.kill(process.pid, "SIGKILL");
}

const { run, subscribe, on, messages } = Peer.prototype;
/** True while a peer subscribes for a typed handler, which applies the faults itself. */
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
  // The call of next() completes the previous message.
  loop.next = async (): Promise<IteratorResult<Message>> => {
    if (isHandling) onHandled();
    const result = await next();
    isHandling = !result.done;
    return result;
  };
  return loop;
};
