/**
 * The worker's end of the channel to the process that started it; see `worker.ts`.
 */

/** One request. */
export interface Request {
  readonly id: number;
  readonly name: string;
  readonly argument: unknown;
}

/** Its answer: `error`, in words and with its stack, if it failed. */
export interface Answer {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: string;
}

/** How long closing may take before the process ends all the same. */
const closeTimeoutMs = 3_000;

/**
 * Answers requests until the channel closes; then calls `close` and ends the process.
 *
 * Ctrl-C in a terminal reaches the whole process group; here it is left to the process that started this one, which then
 * closes the channel.
 */
export function serveRequests(
  handlers: { readonly [name: string]: (argument: never) => unknown },
  close: () => Promise<void>,
): void {
  for (const signal of ["SIGINT", "SIGHUP"] as const) process.on(signal, () => undefined);
  process.on("message", (message) => void answer(message as Request, handlers));
  process.on("disconnect", () => {
    setTimeout(() => process.exit(1), closeTimeoutMs).unref();
    close().then(
      () => process.exit(0),
      (error) => {
        console.error(error);
        process.exit(1);
      },
    );
  });
}

async function answer({ id, name, argument }: Request, handlers: Parameters<typeof serveRequests>[0]): Promise<void> {
  let answer: Answer;
  try {
    const handle = handlers[name];
    if (handle === undefined) throw new Error(`it does not know the request "${name}"`);
    answer = { id, result: await handle(argument as never) };
  } catch (error) {
    answer = { id, error: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
  // The channel may be closing; then nobody waits for the answer, and that it cannot be sent is no error.
  if (process.connected) process.send?.(answer, () => undefined);
}
