/** The form that corrects a dead letter, and the list of what operators have done. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema, file_google_protobuf_wrappers, UInt64ValueSchema } from "@bufbuild/protobuf/wkt";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { type Login, login } from "../installation/support/logins.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { temporaryDirectory } from "../support/temporary.js";
import { formOf, origin, type PageClient, pageClient, viewerOf } from "./support/page-world.js";

let database: TestDatabase;
let client: pg.Client;
let page: PageClient;
let viewer: Login & AsyncDisposable;
let other: Login & AsyncDisposable;
beforeAll(async () => {
  database = await testDatabase({ nats: false });
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
  page = pageClient({ databaseUrl: database.url });
  viewer = await viewerOf(database.url);
  other = await login(database.url, "IN ROLE hawser_peer");
});
afterAll(async () => {
  await page?.[Symbol.asyncDispose]();
  await viewer?.[Symbol.asyncDispose]();
  await other?.[Symbol.asyncDispose]();
  await client?.end();
  await database?.drop();
});
beforeEach(async () => {
  await client.query(
    "TRUNCATE hawser_data.queue, hawser_data.dead_letters, hawser_data.original_payloads, hawser_data.audit_records",
  );
});

async function letter(payload: string): Promise<string> {
  const { rows } = await client.query(
    `INSERT INTO hawser_data.dead_letters (topic, payload, error_code, error_message, attempts, job_id, origin, source)
     VALUES ('mail', convert_to($1, 'UTF8'), 'handler_failed', 'no', 1, nextval('hawser_data.outbox_id_seq'), 'queue', '') RETURNING id`,
    [payload],
  );
  return rows[0].id;
}
const payloads = async (table: string) =>
  (await client.query(`SELECT convert_from(payload, 'UTF8') AS payload FROM hawser_data.${table} ORDER BY 1`)).rows.map(
    ({ payload }) => payload,
  );
/** Sends the form of a letter, as a browser does. */
async function send(
  id: string,
  payload: string,
  action: string,
  on = page,
  more: Record<string, string> = {},
  of = page,
) {
  const { fields } = formOf((await of.get(`/dead/${id}/edit`)).text, "Edit");
  const body = new FormData();
  const values = { ...fields, "typed-payload": payload.replaceAll("\n", "\r\n"), do: action, ...more };
  for (const [name, value] of Object.entries(values)) body.append(name, value);
  const headers = { "sec-fetch-site": "same-origin", origin };
  return await on.handler(new Request(`${origin}/dead/${id}/edit`, { method: "POST", body, headers }));
}

it("replaces the payload, and shows the original where the payload is shown", async () => {
  const id = await letter('{\n  "amount": "<17>"\n}');
  expect((await page.get(`/dead/${id}`)).text).toContain(`href="/dead/${id}/edit"`);
  const { text } = await page.get(`/dead/${id}/edit`);
  expect(text).toContain('rows="20">\n{\n  &quot;amount&quot;: &quot;&lt;17&gt;&quot;\n}</textarea>');
  const response = await send(id, '{\n  "amount": 17\n}', "edit");
  expect([response.status, response.headers.get("location")]).toEqual([303, `/dead/${id}?payload=1`]);
  expect(await payloads("dead_letters")).toEqual(['{\n  "amount": 17\n}']);
  const shown = (await page.get(`/dead/${id}?payload=1`)).text;
  expect(shown).toMatch(/Original payload.*Edited by <bdi>postgres<\/bdi>.*&lt;17&gt;/s);
  const hidden = (await page.get(`/dead/${id}`)).text;
  expect(hidden).toContain("It was edited by");
  expect(hidden).not.toContain("&lt;17&gt;");
});

it("retries with the new payload, or enqueues another one like it", async () => {
  const [one, two] = [await letter("x"), await letter("y")];
  const retried = await send(one, "edited", "retry");
  expect(retried.headers.get("location")).toMatch(/^\/message\?id=\d+$/);
  const copied = await send(two, "copy", "new");
  expect(copied.headers.get("location")).toMatch(/^\/message\?id=\d+$/);
  expect(await payloads("queue")).toEqual(["copy", "edited"]);
  expect(await payloads("dead_letters")).toEqual(["y"]);
});

it("keeps what was typed where it is refused, with the remedy", async () => {
  const id = await letter('{"a": 1}');
  const refused = await send(id, '{"a": <1>', "retry");
  expect(refused.status).toBe(400);
  const text = await refused.text();
  expect(text).toMatch(/is JSON, and the new payload is not.*any_format/s);
  expect(text).toContain("{&quot;a&quot;: &lt;1&gt;</textarea>");
  expect(await payloads("queue")).toEqual([]);
  expect((await send(id, '{"a": 1', "edit", page, { any: "yes" })).status).toBe(303);
});

it("has no form for bytes, long payloads, and texts that a form would change", async () => {
  for (const payload of ["a\rb", "a\u0007b", "x".repeat(61 * 1024)]) {
    const id = await letter(payload);
    const { text } = await page.get(`/dead/${id}/edit`);
    expect(text).toContain(`hawser dead edit ${id} --payload-file`);
    expect(text).not.toContain("<textarea");
  }
});

it("refuses a form without a token, one of a viewer, and one of another role's letter", async () => {
  const id = await letter("x");
  expect((await send(id, "y", "edit", page, { token: "" })).status).toBe(403);
  await using watching = pageClient({ databaseUrl: viewer.url });
  expect((await watching.get(`/dead/${id}/edit`)).text).not.toContain("<textarea");
  await using foreign = pageClient({ databaseUrl: other.url });
  const { fields } = formOf((await foreign.get(`/dead/${id}/edit`)).text, "Edit");
  const response = await send(id, "y", "edit", foreign, fields);
  expect(response.status).toBe(403);
  expect(await response.text()).toContain("belongs to the role");
  expect(await payloads("dead_letters")).toEqual(["x"]);
});

it("lists acts, filtered and page by page; the viewer sees no ids", async () => {
  const id = await letter("secret");
  await send(id, "other", "edit");
  await client.query("SELECT hawser.pause_topic('reports')");
  const { text } = await page.get("/audit");
  expect(text).toMatch(/pause.*<bdi>reports<\/bdi>.*edit.*<bdi>mail<\/bdi>/s);
  expect(text).toContain(`&quot;ids&quot;:[${id}]`);
  expect(text).not.toContain("secret");
  expect((await page.get("/audit?topic=mail")).text).not.toContain("reports</bdi>");
  expect((await page.get("/audit?action=polish")).text).toContain("action");
  expect((await page.get("/audit?before=1")).text).toContain("nothing that matches");
  expect((await page.get("/audit?before=x")).status).toBe(400);
  await using watching = pageClient({ databaseUrl: viewer.url });
  const seen = (await watching.get("/audit")).text;
  expect(seen).toContain("<bdi>reports</bdi>");
  expect(seen).not.toContain("ids");
});

it("edits a typed payload as JSON, which is encoded by its type, also of another message like one", async () => {
  const descriptors = join(temporaryDirectory(), "image.binpb");
  const image = create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto] });
  writeFileSync(descriptors, toBinary(FileDescriptorSetSchema, image));
  await using typed = pageClient({ databaseUrl: database.url, descriptors, secret: "s".repeat(32) });
  await using untyped = pageClient({ databaseUrl: database.url, secret: "s".repeat(32) });
  const bytesOf = (value: bigint) => Buffer.from(toBinary(UInt64ValueSchema, create(UInt64ValueSchema, { value })));
  const type = `application/x-protobuf; type=${UInt64ValueSchema.typeName}`;
  const id = await letter("x");
  const jobId = (
    await client.query(
      `SELECT hawser.enqueue('mail', $1::bytea, headers => jsonb_build_object('content-type', $2::text)) AS id`,
      [bytesOf(17n), type],
    )
  ).rows[0].id;
  await client.query(
    "UPDATE hawser_data.dead_letters SET payload = $1, headers = jsonb_build_array(jsonb_build_array('content-type', $2::text)) WHERE id = $3",
    [bytesOf(17n), type, id],
  );
  const pathOf = { dead: `/dead/${id}/edit`, job: `/message/like?id=${jobId}` };
  for (const path of Object.values(pathOf)) {
    expect((await typed.get(path)).text).toContain("&quot;17&quot;</textarea>");
    expect((await untyped.get(path)).text).toContain("no plain text");
  }
  const refused = await send(id, '"many"', "edit", typed, {}, typed);
  expect([refused.status, await refused.text()]).toEqual([
    400,
    expect.stringContaining("the payload is no JSON of google.protobuf.UInt64Value"),
  ]);
  const greatest = 2n ** 64n - 1n;
  expect((await send(id, `"${greatest}"`, "edit", typed, {}, typed)).status).toBe(303);
  const stored = async (table: string, of: string) =>
    (await client.query(`SELECT payload FROM hawser_data.${table} WHERE id = $1`, [of])).rows[0].payload;
  expect(await stored("dead_letters", id)).toEqual(bytesOf(greatest));
  expect((await typed.get(`/dead/${id}?payload=1`)).text).toMatch(
    /&quot;18446744073709551615&quot;.*Original.*&quot;17&quot;/s,
  );
  const { fields } = formOf((await typed.get(pathOf.job)).text, "Enqueue it");
  const body = new URLSearchParams({ ...fields, "typed-payload": '"18"' });
  const response = await typed.handler(new Request(`${origin}/message/like`, { method: "POST", body }));
  const copy = /id=(\d+)/.exec(response.headers.get("location") ?? "")![1]!;
  expect(await stored("queue", copy)).toEqual(bytesOf(18n));
});
