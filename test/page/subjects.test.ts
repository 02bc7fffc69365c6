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
