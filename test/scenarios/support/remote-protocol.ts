/**
 * Protocol between a test and its processes over IPC, as JSON; and the side of the processes.
 */
import { setImmediate as turn } from "node:timers/promises";
import { HawserError } from "../../../src/foundation/errors/index.js";

/** The variable in which a process finds its options. */
export const optionsVariable = "HAWSER_TEST_OPTIONS";

/** The options that this process was started with. */
export function optionsOf<Options>(): Options {
  return JSON.parse(process.env[optionsVariable]!) as Options;
}

/** From the test to a process. */
export interface RemoteRequest {
  readonly id: number;
  readonly method: string;
  readonly args: readonly unknown[];
}

/** An error, as it crosses. */
export interface RemoteFailure {
  readonly code: string;
  readonly message: string;
  readonly outcome?: string;
  /** The messages of its causes. */
  readonly causes: readonly string[];
}

/** From a process to the test; besides, whatever the two agree on. */
export type RemoteReport =
  | { readonly kind: "ready" }
  | { readonly kind: "answer"; readonly id: number; readonly value?: unknown; readonly failure?: RemoteFailure }
  | { readonly kind: "told" };

/** Bytes after a forced collection; needs --expose-gc. */
export interface Memory {
  readonly heapAndExternal: number;
  readonly rss: number;
}

/** Functions that answer the calls. */
export type WorkOf<Calls extends { [Name in keyof Calls]: (...args: never[]) => unknown }> = {
  [Name in keyof Calls]: (...args: Parameters<Calls[Name]>) => Promise<ReturnType<Calls[Name]>>;
};

/** Tells the test something. */
export function tell(report: object): void {
  if (process.connected) process.send?.(report);
}

export function failureOf(error: unknown): RemoteFailure {
  const causes: string[] = [];
  for (let cause = (error as Error).cause; cause instanceof Error; cause = cause.cause) causes.push(cause.message);
  if (!(error instanceof HawserError)) return { code: "foreign", message: String(error), causes };
  const { code, message, outcome } = error;
  return { code, message, causes, ...(outcome === undefined ? {} : { outcome }) };
}

/** From now on this process does what the test asks. */
export function serveCalls(work: object): void {
  process.on("message", ({ id, method, args }: RemoteRequest) => {
    const call = (work as Record<string, (...args: readonly unknown[]) => Promise<unknown>>)[method]!;
    call(...args).then(
      (value) => tell({ kind: "answer", id, value }),
      (error) => tell({ kind: "answer", id, failure: failureOf(error) }),
    );
  });
  tell({ kind: "ready" });
}

export async function memory(): Promise<Memory> {
  // Twice, with a turn between: what finalizers release goes with the second.
  globalThis.gc?.();
  await turn();
  globalThis.gc?.();
  const { heapUsed, external, rss } = process.memoryUsage();
  return { heapAndExternal: heapUsed + external, rss };
}
