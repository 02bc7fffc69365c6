import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, expect, it } from "vitest";
import { BenchFailure } from "../../bench/suite.js";
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

it("answers each request, tells where a failed one failed, and when it dies fails what it is asked", async () => {
  const answers = [worker.request("double", 21), worker.request("fail", "no luck"), worker.request("double", 1)];
  const [first, second, third] = await Promise.allSettled(answers);
  expect([first, third]).toEqual([
    { status: "fulfilled", value: 42 },
    { status: "fulfilled", value: 2 },
  ]);
  const { reason } = second as PromiseRejectedResult;
  expect(reason).toBeInstanceOf(BenchFailure);
  expect(reason.message).toMatch(/^the testing process: Error: no luck\n.*programs\/worker\.ts/s);

  const asked = [worker.request("hang", undefined as never), worker.request("die", 7)];
  const failure = "the testing process has ended (status 7); see its output above";
  for (const one of asked) await expect(one).rejects.toThrow(failure);
  await expect(worker.request("double", 1)).rejects.toThrow(failure);
});

it.each(["stopped", "aborted"])("ends when it is %s, also in the middle of a request", async (how) => {
  await worker.request("double", 1);
  const hanging = worker.request("hang", undefined as never);
  if (how === "stopped") void worker.stop();
  else stop.abort();
  await expect(hanging).rejects.toThrow("has ended (status 0)");
});
