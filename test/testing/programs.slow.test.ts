/**
 * Programs that are started with faults, which know nothing of them: in a project with the package as it is installed.
 */
import { expect, it } from "vitest";
import { testNatsUrl, testServerUrl } from "../support/database.js";
import { runners, sampleProject, startIn } from "./sample-project.js";

/** Prints each message, handled by the handler of all topics, by that of one topic, or in a loop. */
const listener = `
import { Peer } from "hawser";

const [way] = process.argv.slice(2);
const databaseUrl = process.env.DATABASE_URL;
const peer = new Peer({ name: "listener", databaseUrl, stopOnSignals: true, defaults: { retry: { delayMs: 1 } } });
const handle = ({ payload, attempt }) => void process.stdout.write(Buffer.from(payload) + " " + attempt + "\\n");
if (way === "loop") {
  (async () => {
    for await (const message of peer.messages("listener")) handle(message);
  })();
} else if (way === "topic") {
  await peer.handle("another", handle);
  await peer.handle("listener", () => { throw new Error("not this one"); });
} else await peer.handle("listener", handle);
await peer.start();
`;

const tests = `
import assert from "node:assert/strict";
import { test } from "node:test";
import { Peer } from "hawser";
import { eventually, testStack } from "hawser/testing";

const withinMs = 30_000;

async function withPrograms(way, use) {
  await using stack = await testStack();
  const { databaseUrl } = stack;
  const env = { DATABASE_URL: databaseUrl };
  const start = (faults) => stack.start("node", ["listener.js", way], { env, ...faults });
  await using sender = new Peer({ name: "sender", databaseUrl });
  await sender.start();
  const topic = way === "topic" ? "another" : "listener";
  const send = async (text) => {
    await eventually(() => sender.refreshAddressTopic(topic), { withinMs });
    await sender.send(topic, text);
  };
  await use({ start, send, sender });
}

for (const way of ["handler", "topic", "loop"]) {
  test("is killed after its second handler, and the message comes again: " + way, () =>
    withPrograms(way, async ({ start, send, sender }) => {
      const first = await start({ killAfterHandler: 2 });
      await send("a");
      await send("b");
      assert.deepEqual(await first.ended, { status: null, signal: "SIGKILL" });
      assert.equal(first.output, "a 1\\nb 1\\n");
      const second = await start({});
      await eventually(async () => assert.equal(await sender.pendingCount(), 0), { withinMs });
      await eventually(() => assert.match(second.output, /^b \\d\\n$/), { withinMs });
      assert.equal((await second.stop()).status, 0);
    }));
}

for (const way of ["handler", "topic"]) {
  test("has each message come twice: " + way, () =>
    withPrograms(way, async ({ start, send }) => {
      const program = await start({ twice: true });
      await send("a");
      await eventually(() => assert.equal(program.output, "a 1\\na 2\\n"), { withinMs });
      await program.stop();
    }));
}
`;

it("have the faults that they are started with", async () => {
  const project = sampleProject({ "listener.js": listener, "faults.test.ts": tests });
  const env = { HAWSER_DATABASE_URL: testServerUrl(), HAWSER_NATS_URL: testNatsUrl() };
  const { status, stdout } = await startIn(project, [...runners.node, "faults.test.ts"], env).ended;
  expect(stdout).toMatch(/^. pass 5$/m);
  expect(status).toBe(0);
});
