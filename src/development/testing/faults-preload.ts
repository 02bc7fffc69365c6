/**
 * Preload module of a program that is started with faults ({@link Faults}): applies them to the program's peer
 * handlers.
 */
import { type Message, Peer } from "../../jobs-and-peers/peer/index.js";
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

type AnyMethod = (this: Peer, ...args: unknown[]) => unknown;

const methods = Peer.prototype as unknown as Record<"handle" | "handleBatch" | "respond" | "messages", AnyMethod>;
const { handle, handleBatch, respond, messages } = methods;

/** Wraps a method of `Peer` so that its last argument, the handler, has the faults. */
function faulty(method: AnyMethod): AnyMethod {
  return function (...args) {
    const handler = args.at(-1);
    const given = typeof handler === "function" ? [...args.slice(0, -1), withFaults(handler as () => unknown)] : args;
    return method.apply(this, given);
  };
}

Object.assign(methods, { handle: faulty(handle), handleBatch: faulty(handleBatch), respond: faulty(respond) });

methods.messages = function (...args) {
  const loop = messages.apply(this, args) as AsyncIterableIterator<Message>;
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
