/** Pages of one schedule, topic and subscription: what they list, and what one can do there. */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import type { Login } from "../installation/support/logins.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { formOf, origin, type PageClient, pageClient, viewerOf } from "./support/page-world.js";

const secret = "s".repeat(32);
let database: TestDatabase;
let client: pg.Client;
let page: PageClient;
let viewer: Login & AsyncDisposable;
let watching: PageClient;
beforeAll(async () => {
  database = await testDatabase({ nats: false });
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
  page = pageClient({ databaseUrl: database.url, secret });
  viewer = await viewerOf(database.url);
  watching = pageClient({ databaseUrl: viewer.url, secret });
});
afterAll(async () => {
  await page?.[Symbol.asyncDispose]();
  await watching?.[Symbol.asyncDispose]();
  await viewer?.[Symbol.asyncDispose]();
  await client?.end();
  await database?.drop();
});
beforeEach(async () => {
  await client.query("TRUNCATE hawser_data.queue, hawser_data.dead_letters, hawser_data.schedules");
});

/** Sends a form, as a browser does. */
async function post(action: string, fields: Record<string, string>, on = page) {
  const headers = { "sec-fetch-site": "same-origin", origin };
  const body = new URLSearchParams(fields);
  const response = await on.handler(new Request(`${origin}${action}`, { method: "POST", body, headers }));
  return { status: response.status, location: response.headers.get("location"), text: await response.text() };
}

const name = "50%_&_<night>";
const path = `/schedule?${new URLSearchParams({ name, role: "postgres" })}`;
const schedule = async () => {
  await client.query("SELECT hawser.schedule($1, '0 0 1 1 *', 'reports', 'x'::text)", [name]);
  await client.query(
    "UPDATE hawser_data.schedules SET since = since - interval '1 min', next_at = '2100-01-01 00:00:00Z'",
  );
};

it("a schedule is run now after a confirmation, and leads to its message", async () => {
  await schedule();
  const { text } = await page.submit(path, "Run now");
  expect(text).toContain("Its next occurrence stays");
  expect((await client.query("SELECT id FROM hawser_data.queue")).rows).toEqual([]);
  const { action, fields } = formOf(text, "Run it now");
  const { location } = await post(action, fields);
  const { rows } = await client.query("SELECT id, topic FROM hawser_data.queue");
  expect(rows).toEqual([{ id: expect.any(String), topic: "reports" }]);
  expect(location).toBe(`/message?id=${rows[0].id}`);
  expect(await post(action, { ...fields, name: "none" })).toMatchObject({
    status: 400,
    text: expect.stringContaining("has a schedule"),
  });
});

it("a login that may run no schedules has no button, and its form is refused", async () => {
  await schedule();
  expect((await watching.get(path)).text).not.toContain("Run now");
  const { action, fields } = formOf((await page.get(path)).text, "Run now");
  const refused = await post(action, { ...fields, confirm: "yes" }, watching);
  expect(refused).toMatchObject({ status: 403, text: expect.stringContaining("may not run schedules") });
  expect((await client.query("SELECT id FROM hawser_data.queue")).rows).toEqual([]);
});

const put = async (payload: string, rest = "") =>
  String((await client.query(`SELECT hawser.enqueue('mails', $1::text${rest}) AS id`, [payload])).rows[0].id);
/** Ids that a section of the topic's page leads to. */
const listed = (text: string, section: string): string[] =>
  [
    ...(new RegExp(`<section id="${section}".*?</section>`, "s").exec(text)?.[0] ?? "").matchAll(
      /\/message\?id=(\d+)"/g,
    ),
  ].map(([, id]) => id!);

it("a topic lists its oldest and its next messages, with a link to each and to its payload", async () => {
  const [first, later, urgent] = [
    await put("first <secret>"),
    await put("x", ", deliver_at => now() + interval '1 h'"),
    await put("x", ", priority => 1"),
  ];
  const { text } = await page.get("/topic?name=mails");
  expect(listed(text, "oldest")).toEqual([first, urgent]);
  expect(listed(text, "next")).toEqual([urgent, first]);
  expect(text).not.toContain("secret");
  const [, link] = /href="(\/message\?id=\d+&amp;payload=1)#payload">Payload</.exec(text)!;
  expect(link!.replace("&amp;", "&")).toBe(`/message?id=${first}&payload=1`);
  expect((await page.get(`/message?id=${first}&payload=1`)).text).toContain("first &lt;secret&gt;");
  expect((await page.get(`/message?id=${first}`)).text).not.toContain("secret");
  expect((await page.get(`/message?id=${later}`)).text).toContain(`/message/like?id=${later}"`);
});

it("a viewer sees neither messages of a topic nor a payload", async () => {
  const id = await put("the secret");
  const { text } = await watching.get("/topic?name=mails");
  expect(listed(text, "oldest")).toEqual([]);
  expect(text).toContain("This login may not read it");
  for (const path of [`/message?id=${id}&payload=1`, `/message/like?id=${id}`]) {
    const shown = (await watching.get(path)).text;
    expect(shown).not.toContain("secret");
    expect(shown).not.toContain("<textarea");
  }
  expect(await watching.get(`/message/like?id=${id}`)).toMatchObject({ status: 403 });
  const { fields } = formOf((await page.get(`/message/like?id=${id}`)).text, "Enqueue it");
  const sent = await post("/message/like", { ...fields, "typed-payload": "x" }, watching);
  expect(sent).toMatchObject({ status: 403, text: expect.stringContaining("may not enqueue messages") });
});

it("another message like one that waits is enqueued, with its key and headers, and the payload that was typed", async () => {
  const id = await put('{"a": 1}', `, key => 'k', headers => '{"tenant": "<t>"}', message_id => 'own'`);
  const { text } = await page.get(`/message/like?id=${id}`);
  expect(text).toContain("{&quot;a&quot;: 1}</textarea>");
  const { action, fields } = formOf(text, "Enqueue it");
  const { location } = await post(action, { ...fields, "typed-payload": '{\r\n"a": 2}' });
  const { rows } = await client.query(
    "SELECT id, topic, key, headers, convert_from(payload, 'UTF8') AS payload FROM hawser_data.queue WHERE id <> $1",
    [id],
  );
  expect(rows).toEqual([
    { id: expect.any(String), topic: "mails", key: "k", headers: [["tenant", "<t>"]], payload: '{\n"a": 2}' },
  ]);
  expect(location).toBe(`/message?id=${rows[0].id}`);
  const refused = await post(action, { ...fields, "typed-payload": "" });
  expect(refused).toMatchObject({ status: 400, text: expect.stringContaining('class="error"') });
});

it("another message like one that was handled is enqueued, whose payload is not kept", async () => {
  await client.query("SELECT hawser.keep_results('mails', 60000)");
  const id = await put("x", ", deliver_at => now() + interval '1 h'");
  await client.query("SELECT hawser.cancel($1)", [id]);
  expect((await page.get(`/message?id=${id}`)).text).toContain(`/message/like?id=${id}"`);
  const { text } = await page.get(`/message/like?id=${id}`);
  expect(text).toContain("Its payload is not kept");
  const { action, fields } = formOf(text, "Enqueue it");
  await post(action, { ...fields, "typed-payload": "again" });
  const { rows } = await client.query("SELECT convert_from(payload, 'UTF8') AS payload FROM hawser_data.queue");
  expect(rows).toEqual([{ payload: "again" }]);
  expect((await page.get("/message/like?id=99999")).status).toBe(400);
  expect((await page.get("/message/like?id=x")).status).toBe(400);
});

it("a message for all listeners has no other one like it", async () => {
  await client.query("SELECT hawser.keep_results('mails', NULL)");
  const id = await put("x", ", to_all => true");
  const { action, fields } = formOf((await page.get(`/message/like?id=${id}`)).text, "Enqueue it");
  const refused = await post(action, { ...fields, "typed-payload": "x" });
  expect(refused).toMatchObject({ status: 400, text: expect.stringContaining("or all listeners") });
});
