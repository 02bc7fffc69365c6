import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema, file_google_protobuf_wrappers, UInt64ValueSchema } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { shownRows } from "../../src/operating/console/index.js";
import { undoMs } from "../../src/operating/console/mass-actions.js";
import { decodedPayloadBytes } from "../../src/operating/page/html/payload.js";
import { type PeerWorld, peerWorld } from "../peer/support/world.js";
import { eventually } from "../support/eventually.js";
import { ManualClock } from "../support/manual-clock.js";
import { temporaryDirectory } from "../support/temporary.js";
import { formOf, origin, type PageClient, pageClient } from "./support/page-world.js";

describe("dead letters on the page", () => {
  let w: PeerWorld;
  let fails = true;
  const handled: string[] = [];

  beforeAll(async () => {
    w = await peerWorld({ keepsConnections: true });
    await w.started("b-1", { defaults: { retry: { attempts: 1 } } }, (message) => {
      if (fails) throw new Error(`order ${handled.length} is <b>not</b> there`);
      handled.push(message.text());
    });
  });
  afterAll(() => w[Symbol.asyncDispose]());
  beforeEach(async () => {
    fails = true;
    handled.length = 0;
    await w.query("DELETE FROM hawser_data.dead_letters");
  });

  let senders = 0;
  /** Lets messages with these texts die. */
  async function die(...texts: (string | Uint8Array)[]): Promise<void> {
    const sender = await w.started(`sender-${(senders += 1)}`);
    for (const text of texts) await sender.send("b", text, { headers: { traceparent } });
    const rows = () => w.query("SELECT FROM hawser_data.dead_letters");
    await eventually("they are dead", async () => (await rows()).length === texts.length);
  }
  const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const insert = (values: string) =>
    w.query(
      `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts) ${values}`,
    );

  /** Submits the form of a page that asks. */
  function confirmed(client: PageClient, text: string, button: string): Promise<Response> {
    const { action, fields } = formOf(text, button);
    return client.handler(new Request(`${origin}${action}`, { method: "POST", body: new URLSearchParams(fields) }));
  }

  it("are grouped by cause, whatever numbers the messages have", async () => {
    await using client = pageClient({ databaseUrl: w.url });
    await insert(
      "SELECT 'queue', '', 'orders', 'x', 'handler_failed', 'order ' || n || ' is unknown', 1 FROM generate_series(1, 7) AS n",
    );
    await insert(
      "SELECT 'subscription', 'public.f', 'mail', 'x', 'P0001', 'no address', 1 FROM generate_series(1, 3) AS n",
    );
    const { status, text } = await client.get("/");
    expect(status).toBe(200);
    expect(text).toMatch(/order # is unknown<\/bdi>.*<td class="number">7<\/td>/s);
    const link = /<a href="([^"]*)"><bdi>order # is unknown/.exec(text)![1]!.replaceAll("&amp;", "&");
    const list = await client.get(link);
    expect(list.text).toContain("7 dead letters match, the newest first.");
    expect(list.text).not.toContain("no address");
  });

  it("of a cause are exactly those that its link leads to, whatever their message is", async () => {
    await using client = pageClient({ databaseUrl: w.url });
    await insert(
      `SELECT 'subscription', f, 'mail', 'x', 'P0001', m, 1
         FROM unnest(ARRAY['public.f', E'public.f\\r', E'public.f\\r\\n']) AS f, unnest(ARRAY['', E'no address\\r\\nat line 1', '7']) AS m`,
    );
    const { text } = await client.get("/causes");
    const links = [...text.matchAll(/<a href="(\/dead\?[^"]*)">/g)].map(([, link]) => link!.replaceAll("&amp;", "&"));
    expect(links).toHaveLength(9);
    for (const link of links) expect((await client.get(link)).text, link).toContain("1 dead letter matches");
    // A browser sends each end of a line as \r\n.
    const { action, fields } = formOf((await client.get(links[0]!)).text, "Discard it");
    const sent = Object.fromEntries(
      Object.entries(fields).map(([name, value]) => [name, value.replace(/\r?\n|\r/g, "\r\n")]),
    );
    const request = new Request(`${origin}${action}`, { method: "POST", body: new URLSearchParams(sent) });
    expect(await (await client.handler(request)).text()).toContain("1 dead letter will be deleted");
  });

  it("are listed page by page, the newest first", async () => {
    await using client = pageClient({ databaseUrl: w.url });
    await insert(
      `SELECT 'queue', '', 'orders', 'x', 'handler_failed', 'm', 1 FROM generate_series(1, ${2 * shownRows + 1}) AS n`,
    );
    const shown: number[] = [];
    let path: string | undefined = "/dead?topic=orders";
    for (let pages = 1; path !== undefined; pages += 1) {
      expect(pages).toBeLessThanOrEqual(3);
      const { text } = await client.get(path);
      shown.push(...[...text.matchAll(/<a href="\/dead\/(\d+)">/g)].map(([, id]) => Number(id)));
      path = /<a href="([^"]*)">Next/.exec(text)?.[1]?.replaceAll("&amp;", "&");
    }
    const ids = await w.query<{ id: number }>("SELECT id FROM hawser_data.dead_letters ORDER BY id DESC");
    expect(shown).toEqual(ids.map(({ id }) => id));
  });

  it("are retried after a confirmation in their order, all that a filter shows, and go", async () => {
    await using client = pageClient({ databaseUrl: w.url });
    const texts = Array.from({ length: 20 }, (_, index) => `m${index}`);
    await die(...texts);
    fails = false;
    const asked = await client.submit("/dead?topic=b", "Retry all 20");
    expect(asked).toMatchObject({
      status: 200,
      text: expect.stringContaining("20 dead letters will be handled again"),
    });
    expect(handled).toEqual([]);
    // One that has come since was not shown, and stays.
    await insert("VALUES ('queue', '', 'b', 'x', 'handler_failed', 'later', 1)");
    const { status, headers } = await confirmed(client, asked.text, "Retry all 20");
    expect(status).toBe(303);
    const job = headers.get("location")!;
    await eventually("the job is done", async () => (await client.get(job)).text.includes('<strong class="">done'));
    expect((await client.get(job)).text).toContain("<dt>enqueued</dt><dd>20</dd>");
    await eventually("all are handled", () => handled.length === texts.length);
    expect(handled).toEqual(texts);
    expect((await client.get("/dead")).text).toContain("1 dead letter matches");
  });

  it("are discarded after a confirmation, and not if that is undone in time", async () => {
    const clock = new ManualClock();
    await using client = pageClient({ databaseUrl: w.url }, clock);
    await insert("SELECT 'queue', '', 'orders', 'x', 'handler_failed', 'm', 1 FROM generate_series(1, 5) AS n");
    const asked = await client.submit("/dead?topic=orders", "Discard all 5");
    expect(asked).toMatchObject({ status: 200, text: expect.stringContaining("5 dead letters will be deleted") });
    const confirm = async () => {
      const { text } = await client.submit("/dead?topic=orders", "Discard all 5");
      return (await confirmed(client, text, "Discard all 5")).headers.get("location")!;
    };
    const undone = await confirm();
    await client.submit(undone, "Undo");
    await eventually("the job is stopped", async () => (await client.get(undone)).text.includes(">stopped<"));
    clock.advance(undoMs * 2);
    expect(await w.query("SELECT FROM hawser_data.dead_letters")).toHaveLength(5);
    const done = await confirm();
    // A later one was not shown, and stays.
    await insert("VALUES ('queue', '', 'orders', 'x', 'handler_failed', 'later', 1)");
    clock.advance(undoMs);
    await eventually("the job is done", async () => (await client.get(done)).text.includes(">done<"));
    expect(await w.query("SELECT error_message FROM hawser_data.dead_letters")).toEqual([{ error_message: "later" }]);
  });

  it("say why they were refused, and stay", async () => {
    await using client = pageClient({ databaseUrl: w.url });
    await insert("VALUES ('subscription', 'public.f', 's', 'x', 'P0001', 'm', 1)");
    const { text } = await client.submit("/dead", "Retry it");
    const job = (await confirmed(client, text, "Retry it")).headers.get("location")!;
    await eventually("the job is done", async () => (await client.get(job)).text.includes(">done<"));
    expect((await client.get(job)).text).toContain("belongs to a function that is no longer subscribed");
    expect(await w.query("SELECT FROM hawser_data.dead_letters")).toHaveLength(1);
  });

  it("say how often a stop has cut their handler off", async () => {
    await using client = pageClient({ databaseUrl: w.url });
    await insert("VALUES ('queue', '', 'orders', 'x', 'handler_failed', 'm', 1)");
    const [{ id } = { id: 0 }] = await w.query<{ id: number }>(
      "UPDATE hawser_data.dead_letters SET given_back = 2 RETURNING id",
    );
    for (const path of ["/dead", `/dead/${id}`])
      expect((await client.get(path)).text).toContain("1, and cut off 2 times by a stop");
  });

  it("show their payload on request, and link to their trace", async () => {
    await using client = pageClient({ databaseUrl: w.url, traceUrl: "https://traces.example/t/{traceId}" });
    await die('{"id": 9007199254740993}');
    const [{ id } = { id: 0 }] = await w.query<{ id: number }>("SELECT id FROM hawser_data.dead_letters");
    const { text } = await client.get(`/dead/${id}`);
    expect(text).toContain('href="https://traces.example/t/0af7651916cd43dd8448eb211c80319c"');
    expect(text).not.toContain("9007199254740993");
    expect((await client.get(`/dead/${id}?payload=1`)).text).toContain("9007199254740993");
    const raw = await client.get(`/dead/${id}/payload`);
    expect(raw.text).toBe('{"id": 9007199254740993}');
    expect(raw.headers.get("content-disposition")).toContain("attachment");
    const [{ place }] = (await w.query("SELECT message_id AS place FROM hawser_data.dead_letters")) as [
      { place: string },
    ];
    expect(text).toContain(`<dt>Sent as</dt><dd>`);
    expect(text).toContain(place);
    const found = await client.get(`/message?${new URLSearchParams({ id: place })}`);
    expect(found.text).toContain(`/dead/${id}">Dead letter ${id}</a>`);
  });

  it("show typed payloads as JSON, with 64-bit integers as they are, unless they are long", async () => {
    const descriptors = join(temporaryDirectory(), "image.binpb");
    const image = create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto] });
    writeFileSync(descriptors, toBinary(FileDescriptorSetSchema, image));
    await using client = pageClient({ databaseUrl: w.url, descriptors });
    const shown = async (payload: Uint8Array, type: string) => {
      const [{ id } = { id: 0 }] = await w.query<{ id: number }>(
        `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, headers, error_code, error_message, attempts)
         VALUES ('queue', '', 't', $1, jsonb_build_array(jsonb_build_array('content-type', $2::text)), 'c', 'm', 1) RETURNING id`,
        [payload, `application/x-protobuf; type=${type}`],
      );
      return (await client.get(`/dead/${id}?payload=1`)).text;
    };
    const bytes = toBinary(UInt64ValueSchema, create(UInt64ValueSchema, { value: 2n ** 64n - 1n }));
    expect(await shown(bytes, UInt64ValueSchema.typeName)).toContain("&quot;18446744073709551615&quot;");
    expect(await shown(bytes, "acme.v1.Unknown")).toContain("acme.v1.Unknown is not in");
    const long = await shown(Buffer.alloc(decodedPayloadBytes + 1, "x"), "google.protobuf.StringValue");
    expect(long).toContain(`Messages of types are decoded up to ${decodedPayloadBytes} bytes`);
    expect(long).toContain("xxxx");
  });

  it("render hostile contents harmlessly", async () => {
    await using client = pageClient({ databaseUrl: w.url });
    const texts = [
      "<script>alert(1)</script>",
      "<img src=x onerror=alert(1)>",
      '"><svg onload=alert(1)>',
      "</pre><h1>x</h1>",
      "</bdi></td></table><form>",
      "<!--",
      "-->",
      "<![CDATA[",
      "<a href=javascript:alert(1)>x</a>",
      "<style>*{display:none}</style>",
      "<meta http-equiv=refresh content=0>",
      "<base href=//evil>",
      "<iframe src=//evil>",
      "<object data=x>",
      "<template>",
      "<plaintext>",
      "<title>x</title>",
      "\u202Egnp.exe",
      "\u2066\u2067\u2068\u2069",
      "\u200B\u200D\uFEFF",
      "\u0085\u2028\u2029",
      "\u001B[31mred\u0007",
      "a\rb",
      "\u007F",
      "\u00AD",
      "\u{E0001}\u{E0041}",
      "\r\nSet-Cookie: a=b",
      "x".repeat(70_000),
      "👩‍👩‍👧",
      "<ſcript>",
      "\t\n\t",
      "<math><mi/xlink:href=x>",
    ];
    const payloads = [
      ...texts.map((text) => Buffer.from(text)),
      Buffer.alloc(10_000_000, "A<"),
      Buffer.from([0, 1, 255]),
      Buffer.from("a\0b"),
    ];
    const paths = ["/dead", "/"];
    for (const payload of payloads) {
      const message = payload.subarray(0, 2000).toString().replaceAll("\0", "").slice(0, 1000);
      const [{ id } = { id: 0 }] = await w.query<{ id: number }>(
        `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, headers, error_code, error_message, attempts, stack)
         VALUES ('queue', $2, $2, $1, jsonb_build_array(jsonb_build_array($2::text, $2::text)), $2, $2, 1, $2) RETURNING id`,
        [payload, message],
      );
      paths.push(`/dead/${id}?payload=1`);
    }
    // Both lists show all of them.
    expect(payloads.length).toBeLessThan(shownRows);
    for (const path of paths) {
      const { status, text } = await client.get(path);
      expect(status).toBe(200);
      expect(text.length, path).toBeLessThan(2_000_000);
      const tags = new Set([...text.matchAll(/<\/?([^\s>/]*)/g)].map(([, name]) => name));
      expect(
        [...tags].filter((tag) => !ownTags.has(tag!)),
        path,
      ).toEqual([]);
      expect(text.replace(/[\n\t]/g, ""), path).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
    }
  });
});

/** Elements of the page's own. */
const ownTags = new Set(
  "!DOCTYPE html head meta title link body a header p nav ul li main h1 h2 section div table caption thead tbody tr th td bdi span time form input select option button label pre dl dt dd strong progress script noscript svg path figure figcaption details summary small meter tfoot".split(
    " ",
  ),
);
