/** Jobs on the page: found by topic, state, key and header, in pages. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { type PeerWorld, peerWorld } from "../peer/support/world.js";
import { pageClient, viewerOf } from "./support/page-world.js";

let w: PeerWorld;
beforeAll(async () => {
  w = await peerWorld({ keepsConnections: true });
});
afterAll(() => w[Symbol.asyncDispose]());

/** Ids of the jobs that a page lists. */
const listed = (text: string): string[] => [...text.matchAll(/\/message\?id=(\d+)"/g)].map(([, id]) => id!);

it("lists jobs by topic, state, key and header, and leads to each", async () => {
  await using client = pageClient({ databaseUrl: w.url });
  const put = async (rest: string, topic = "mails") =>
    String((await w.query<{ id: bigint }>(`SELECT hawser.enqueue($1, 'x'::text${rest}) AS id`, [topic]))[0]!.id);
  const first = await put(", key => 'k & l', headers => '{\"order\": \"a=17\"}'");
  const second = await put(", deliver_at => now() + interval '1 hour'");
  const other = await put("", "other");
  const found = async (query: string) => listed((await client.get(`/jobs?${query}`)).text);
  expect(await found("")).toEqual([other, second, first]);
  expect(await found("topic=mails&state=&key=&header=")).toEqual([second, first]);
  expect(await found("topic=mails&state=later")).toEqual([second]);
  expect(await found("key=k+%26+l")).toEqual([first]);
  expect(await found("header=order%3Da%3D17")).toEqual([first]);
  expect((await client.get("/jobs?key=k+%26+l")).text).toContain('value="k &amp; l"');
  for (const wrong of ["state=asleep", "header=order"])
    expect(await client.get(`/jobs?${wrong}`)).toMatchObject({ status: 400 });
});

it("has pages of 100 jobs", async () => {
  await using client = pageClient({ databaseUrl: w.url });
  await w.query("SELECT hawser.enqueue_batch('many', array_fill('x'::text, ARRAY[101]))");
  const { text } = await client.get("/jobs?topic=many&state=waiting");
  const [, next] = /href="([^"]+)">Next 100</.exec(text)!;
  expect(listed(text)).toHaveLength(100);
  const rest = (await client.get(next!.replaceAll("&amp;", "&"))).text;
  expect(listed(rest)).toHaveLength(1);
  expect(rest).not.toContain("Next 100");
});

it("shows those who only watch none", async () => {
  await using viewer = await viewerOf(w.url);
  await using client = pageClient({ databaseUrl: viewer.url });
  const { text } = await client.get("/jobs");
  expect(text).toContain("This login may not read it");
  expect(listed(text)).toEqual([]);
});
