/** Topics on the page: paused, resumed, and their messages cancelled. */
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Worker } from "../../src/jobs-and-peers/peer/index.js";
import { type PeerWorld, peerWorld } from "../peer/support/world.js";
import { formOf, origin, pageClient, viewerOf } from "./support/page-world.js";

/** A name that an encoding could change. */
const topic = "50% & <more>";

let w: PeerWorld;
let worker: Worker;
beforeAll(async () => {
  w = await peerWorld({ keepsConnections: true });
  worker = await w.working("b-1");
  await worker.handle(topic, () => undefined);
});
afterAll(() => w[Symbol.asyncDispose]());

const settings = () => w.query("SELECT paused_by FROM hawser_data.topic_settings WHERE topic = $1", [topic]);

/** Page of the topic. */
const path = `/topic?${new URLSearchParams({ name: topic })}`;

/** Sends the form that asks which messages are to be cancelled. */
async function cancel(client: ReturnType<typeof pageClient>, typed: Record<string, string> = {}): Promise<string> {
  const page = (await client.get(path)).text;
  const sent = async (text: string, button: string) => {
    const { action, fields } = formOf(text, button);
    const body = new URLSearchParams({ ...fields, ...typed });
    return (await client.handler(new Request(`${origin}${action}`, { method: "POST", body }))).text();
  };
  return sent(await sent(page, "Cancel messages"), "Cancel them");
}

it("a topic is paused, shown as such, and resumed", async () => {
  await using client = pageClient({ databaseUrl: w.url });
  expect(await client.submit(path, "Pause")).toMatchObject({ status: 303 });
  expect(await settings()).toEqual([{ paused_by: expect.any(String) }]);
  expect((await client.get(path)).text).toContain(">Resume</button>");
  expect(await client.submit(path, "Resume")).toMatchObject({ status: 303 });
  expect((await client.get(path)).text).toContain(">Pause</button>");
});

it("messages of a topic are cancelled after a confirmation, those with a key, or enqueued before a time", async () => {
  await using client = pageClient({ databaseUrl: w.url });
  await client.submit(path, "Pause");
  for (const key of ["100%", "b", "b"]) await w.query("SELECT hawser.enqueue($1, 'x', key => $2)", [topic, key]);
  await w.query("SELECT hawser.enqueue('other', 'x')");
  const waiting = async () => (await w.query("SELECT topic FROM hawser_data.queue")).length;
  expect(await cancel(client, { "typed-minutes": "5" })).toContain("0 messages of the topic");
  expect(await cancel(client, { "typed-minutes": "soon" })).toContain("must be a whole number");
  expect(await waiting()).toBe(4);
  expect(await cancel(client, { "typed-key": "100%" })).toContain("1 message of the topic");
  expect(await cancel(client)).toContain("2 messages of the topic");
  expect(await waiting()).toBe(1);
  await client.submit(path, "Resume");
});

it("a login that may change no topics has no buttons, and its forms are refused", async () => {
  const secret = "s".repeat(32);
  await using viewer = await viewerOf(w.url);
  await using client = pageClient({ databaseUrl: viewer.url });
  await using other = pageClient({ databaseUrl: w.url, secret });
  await using shared = pageClient({ databaseUrl: viewer.url, secret });
  expect((await client.get(path)).text).not.toContain('<button type="submit">Pause');
  const { action, fields } = formOf((await other.get(path)).text, "Pause");
  const request = () => new Request(`${origin}${action}`, { method: "POST", body: new URLSearchParams(fields) });
  expect(await (await shared.handler(request())).text()).toContain("This login may not pause topics");
  // Without a token of its own.
  expect((await client.handler(request())).status).toBe(403);
});
