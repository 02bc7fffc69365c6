import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BenchFailure } from "../../bench/bench-failure.js";
import { Worker } from "../../bench/worker.js";
import type { TestRequests } from "./programs/worker.js";

const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
let worker: Worker<TestRequests>;
let stop: AbortController;

beforeEach(() => {
  stop = new AbortController();
  worker = Worker.start<TestRequests>("testing", new URL("./programs/worker.ts", import.meta.url), {
    execArgv: ["--import", tsx],
    signal: stop.signal,
  });
});
afterEach(() => worker.stop());

describe("a worker", () => {
  it("answers each request, and tells where a failed one failed", async () => {
    const answers = [worker.request("double", 21), worker.request("fail", "no luck"), worker.request("double", 1)];
    const [first, second, third] = await Promise.allSettled(answers);
    expect([first, third]).toEqual([
      { status: "fulfilled", value: 42 },
      { status: "fulfilled", value: 2 },
    ]);
    const { reason } = second as PromiseRejectedResult;
    expect(reason).toBeInstanceOf(BenchFailure);
    expect(reason.message).toMatch(/^the testing process: Error: no luck\n.*programs\/worker\.ts/s);
  });

  it("that dies fails what it was asked and what it is asked then", async () => {
    const hanging = worker.request("hang", undefined as never);
    const dying = worker.request("die", 7);
    const failure = "the testing process has ended (status 7); see its output above";
    await expect(hanging).rejects.toThrow(failure);
    await expect(dying).rejects.toThrow(failure);
    await expect(worker.request("double", 1)).rejects.toThrow(failure);
  });

  it("ends when it is stopped, also in the middle of a request", async () => {
    await worker.request("double", 1);
    const hanging = worker.request("hang", undefined as never);
    const [end] = await Promise.allSettled([hanging, worker.stop()]);
    expect(end).toMatchObject({ reason: { message: expect.stringContaining("has ended (status 0)") } });
  });

  it("ends when its signal is aborted, also in the middle of a request", async () => {
    await worker.request("double", 1);
    const hanging = worker.request("hang", undefined as never);
    stop.abort();
    await expect(hanging).rejects.toThrow("has ended (status 0)");
  });
});
