/** A worker that computes, fails, hangs and dies on request. */
import { serveRequests } from "../../../bench/worker.js";

const requests = {
  double: (value: number): number => value * 2,
  async fail(message: string): Promise<void> {
    throw new Error(message);
  },
  die: (status: number): void => process.exit(status),
  hang: (): Promise<void> => new Promise(() => undefined),
};

/** Requests that the worker answers. */
export type TestRequests = typeof requests;

serveRequests(requests, async () => undefined);
