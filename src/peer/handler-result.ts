import type { HandlerResult } from "../channel/index.js";
import { HawserError, PeerError } from "../errors/index.js";
import { postponed } from "./inbox-services.js";

/** The handler ended well. */
export const done: HandlerResult = { kind: "done" };

/** The message is not to be tried again. */
export function refused(errorCode: HawserError["code"], errorMessage: string): HandlerResult {
  return { kind: "refused", errorCode, errorMessage };
}

/** The handler's session with Postgres has ended: perhaps the message ends it. */
export function sessionEnded(maxAttempts: number, how: string): HandlerResult {
  const errorCode: HawserError["code"] = "handler_crashed";
  const errorMessage = `the session with Postgres ended in the middle of its handler ${maxAttempts} times: ${how}`;
  return { kind: "sessionEnded", errorCode, errorMessage };
}

/** What was thrown in place of handling, or by the handler. */
export function failure(error: unknown): HandlerResult {
  if (error === postponed) return { kind: "postponed" };
  const { code, message } = HawserError.is(error) ? error : { code: "handler_failed", message: messageOf(error) };
  // Trying again would not help: nobody here serves the topic, or the message ends the process.
  if (code === "unsubscribed" || code === "handler_crashed") return refused(code, message);
  return { kind: "failed", errorCode: code, errorMessage: message };
}

/** Waits for a handler, at most so long; `late` is called when the time is over. @throws PeerError `handler_failed` */
export async function withTimeout(returned: unknown, timeoutMs: number, late?: () => void): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      late?.();
      reject(new PeerError("handler_failed", `the handler took longer than ${timeoutMs} ms`));
    }, timeoutMs);
  });
  try {
    await Promise.race([returned, over]);
  } finally {
    clearTimeout(timer);
  }
}

function messageOf(error: unknown): string {
  try {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  } catch {
    return "a value that cannot be shown";
  }
}
