/** Protection, rendering and mounting of the page. */

import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { text as textOf } from "node:stream/consumers";
import { serve } from "@hono/node-server";
import express from "express";
import fastify from "fastify";
import { Hono } from "hono";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { silentLogger } from "../../src/foundation/runtime/index.js";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import { type PageOptions, page } from "../../src/operating/page/index.js";
import { servePage } from "../../src/operating/page/page-server.js";
import { openRequests } from "../../src/operating/page/protection.js";
import { login } from "../installation/support/logins.js";
import { natsTurn, takeNats } from "../outbox/support/turns.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { slowIt } from "../support/slow-it.js";
import { formOf, origin, type PageClient, pageClient, viewerOf } from "./support/page-world.js";

let database: TestDatabase;
/** Client of a page with no further options, for the tests that change nothing. */
let client: PageClient;
beforeAll(async () => {
  database = await testDatabase();
  client = pageClient({ databaseUrl: database.url });
  await onServer(
    database.url,
    `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts)
     VALUES ('queue', '', 'orders', 'the-payload', 'handler_failed', 'm', 1)`,
  );
});
afterAll(async () => {
  await client[Symbol.asyncDispose]();
  await database.drop();
});

const places = [
  "/",
  "/dead",
  "/backlog",
  "/topics",
  "/peers",
  "/outbox",
  "/streams",
  "/schedules",
  "/message",
  "/message?id=a/1/2",
  "/actions",
];

describe("the page of the operator", () => {
  it.each(places)("has headings, a language and named landmarks at %s", async (path) => {
    const { status, text } = await client.get(path);
    expect(status).toBe(200);
    expect(text).toMatch(/^<!DOCTYPE html>\n<html lang="en">/);
    expect(text.match(/<h1>/g)).toHaveLength(1);
    expect(text).toMatch(/<title>[^<]+ - Hawser<\/title>/);
    expect(text).toContain('<nav aria-label="Pages">');
    expect(text).not.toContain('class="failed"');
    expect(text).not.toContain("[object Object]");
    expect(text).not.toContain("undefined");
    for (const [, id] of text.matchAll(/<label for="([^"]+)"/g)) expect(text).toContain(` id="${id}"`);
    const tables = text.match(/<table>/g) ?? [];
    expect(text.match(/<caption>[^<]+<\/caption>/g) ?? []).toHaveLength(tables.length);
  });

  it("allows neither frames nor scripts but its own, and nothing of other origins", async () => {
    const { text, headers } = await client.get("/");
    expect(headers.get("content-security-policy")).toBe(
      "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    );
    expect(headers.get("cache-control")).toBe("no-store");
    expect(headers.get("x-content-type-options")).toBe("nosniff");
    expect(text.replace('<script src="/refresh.js" defer></script>', "")).not.toMatch(
      /<script|<style|style=|\son\w+=|https?:/,
    );
  });

  it("shows the verdict of hawser doctor when it is there", async () => {
    await eventually("there is a verdict", async () => (await client.get("/")).text.includes("Examined "));
    expect((await client.get("/")).text).toMatch(/checks? of \d+ done/);
  });

  it("reloads itself, unless that is paused", async () => {
    await using client = pageClient({ databaseUrl: database.url, refreshMs: 5_000 });
    expect((await client.get("/peers")).text).toMatch(
      /<script src="\/refresh.js" defer>.*<meta http-equiv="refresh" content="5">.*<body data-refresh-ms="5000">/s,
    );
    const paused = await client.get("/peers?paused=1");
    expect(paused.text).not.toMatch(/http-equiv|<script/);
    expect(paused.text).toContain("Reload every 5 seconds");
    // "Pause" is what is done to a topic.
    expect((await client.get("/topics")).text).toContain(">Stop reloading</a>");
    expect((await client.get("/dead")).text).not.toMatch(/http-equiv|<script/);
  });

  it("refuses forms of other sites, without a token, and with a wrong one", async () => {
    const { action, fields } = formOf((await client.get("/dead")).text, "Retry it");
    const post = async (body: Record<string, string>, headers: Record<string, string>) =>
      (
        await client.handler(
          new Request(`${origin}${action}`, { method: "POST", body: new URLSearchParams(body), headers }),
        )
      ).status;
    expect(await post(fields, { "sec-fetch-site": "cross-site" })).toBe(403);
    expect(await post(fields, { "sec-fetch-site": "same-site" })).toBe(403);
    expect(await post(fields, { origin: "https://evil.example" })).toBe(403);
    expect(await post(fields, { origin: "null" })).toBe(403);
    expect(await post({ ...fields, token: "" }, {})).toBe(403);
    expect(await post({ ...fields, token: `9${fields["token"]}` }, {})).toBe(403);
    const { token: _, ...others } = fields;
    expect(await post(others, {})).toBe(403);
    expect(await post({ ...fields, topic: "x".repeat(100_000) }, {})).toBe(413);
    expect(await rowsOf(database.url, "SELECT FROM hawser_data.dead_letters")).toHaveLength(1);
    expect((await client.get(action)).status).toBe(400);
  });

  it("follows links of other sites, and lets them neither embed a page nor load it in the background", async () => {
    const ask = async (site: string, mode: string, dest: string) => {
      const headers = { "sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": dest };
      return (await client.handler(new Request(`${origin}/dead`, { headers }))).status;
    };
    expect(await ask("cross-site", "navigate", "document")).toBe(200);
    expect(await ask("same-origin", "no-cors", "image")).toBe(200);
    expect(await ask("none", "navigate", "document")).toBe(200);
    expect(await ask("cross-site", "no-cors", "image")).toBe(403);
    expect(await ask("cross-site", "navigate", "iframe")).toBe(403);
    expect(await ask("same-site", "cors", "empty")).toBe(403);
  });

  it("refuses forms that it cannot read", async () => {
    const post = async (type: string, body: string) => {
      const request = new Request(`${origin}/dead/retry`, { method: "POST", body, headers: { "content-type": type } });
      return (await client.handler(request)).status;
    };
    expect(await post("multipart/form-data; boundary=x", "--y")).toBe(400);
    expect(await post("application/x-www-form-urlencoded", "token=%25zz")).toBe(400);
    expect(await post("application/json", '{"token": "x"}')).toBe(403);
    expect(await post("text/plain", "token=x")).toBe(403);
  });

  it("refuses requests beyond its limit, answers the others, and then is free again", async () => {
    const answers = await Promise.all(Array.from({ length: openRequests + 5 }, () => client.get("/peers")));
    const statuses = answers.map(({ status }) => status);
    expect(statuses.filter((status) => status === 200)).toHaveLength(openRequests);
    expect(statuses.filter((status) => status === 503)).toHaveLength(5);
    expect((await client.get("/peers")).status).toBe(200);
  });

  slowIt(
    "holds 64 MiB of answers that nobody reads, refuses requests then, and is free when their connections end",
    async () => {
      const mebibytes = 15;
      await using own = await testDatabase();
      await onServer(
        own.url,
        `INSERT INTO hawser_data.dead_letters (id, origin, source, topic, payload, error_code, error_message, attempts)
       VALUES (1, 'queue', '', 'orders', convert_to(repeat('x', ${mebibytes} * 1048576), 'UTF8'), 'handler_failed', 'm', 1)`,
      );
      await using server = await servePage({ listen: "127.0.0.1:0", databaseUrl: own.url });
      const port = Number(new URL(server.url).port);
      const sockets: Socket[] = [];
      onTestFinished(() => {
        for (const socket of sockets) socket.destroy();
      });
      /** Head of the answer, of which nothing more is read. */
      const ask = async (): Promise<string> => {
        const socket = connect(port, "127.0.0.1");
        sockets.push(socket);
        socket.write("GET /dead/1/payload HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        await once(socket, "readable");
        return String(socket.read());
      };
      for (let held = 1; held <= 64 / mebibytes; held += 1) expect(await ask()).toMatch(/^HTTP\/1.1 200 /);
      expect(await ask()).toMatch(/^HTTP\/1.1 503 .*^retry-after: 1/ims);
      for (const socket of sockets) socket.destroy();
      await eventually("there is room", async () => (await ask()).startsWith("HTTP/1.1 200 "));
    },
  );

  it("shows times that no date can have", async () => {
    await using own = await testDatabase();
    const insert = `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, created_at)
      VALUES ('queue', '', 'orders', 'x', 'c', 'm', 1,`;
    await onServer(own.url, `${insert} 'infinity')`, `${insert} '-infinity')`, `${insert} '290000-01-01')`);
    await using client = pageClient({ databaseUrl: own.url });
    expect((await client.get("/dead")).text).toMatch(/<td>a time out of range<.*<td>always<.*<td>never</s);
  });

  it("shows version and certificate of peers, and marks those of running ones that end soon or have ended", async () => {
    await using own = await testDatabase();
    await using store = await openStore({ databaseUrl: own.url });
    const day = 86_400_000;
    const ends = { ended: -day, soon: 13 * day, later: 15 * day, stopped: -day };
    for (const [name, afterMs] of Object.entries(ends)) {
      const lease = await store.takeName(name, { waitMs: 0 });
      await store.registerListener(lease, {
        addr: `${name}:1`,
        maxMessageBytes: 1,
        durable: false,
        version: `<b>${name}\u001b[2J\u202e`,
        certificateEndsAt: new Date(Date.now() + afterMs),
        topics: [],
      });
      if (name === "stopped") await lease.release({ clean: true });
    }
    await using client = pageClient({ databaseUrl: own.url });
    const { text } = await client.get("/peers");
    const [, table] = /<section id="peers"(.*?)<\/section>/s.exec(text)!;
    for (const each of ["<b>", "\u001b", "\u202e"]) expect(text).not.toContain(each);
    const rows = [...table!.matchAll(/<tr><td><a [^>]*><bdi>(\w+)<\/bdi>.*?<\/tr>/g)];
    const shown = rows.map(([row, name]) => [
      name,
      row.includes(`&lt;b&gt;${name}<span class="mark">U+001B</span>[2J<span class="mark">U+202E</span>`),
      /<span class="badge (\w+)"><time/.exec(row)?.[1],
      /(in \d+ days|24 h ago)</.exec(row)?.[1],
    ]);
    expect(shown).toEqual([
      ["stopped", true, undefined, "24 h ago"],
      ["ended", true, "error", "24 h ago"],
      ["later", true, undefined, "in 15 days"],
      ["soon", true, "warning", "in 13 days"],
    ]);
  });

  it("lists what waits from the oldest on, by pages and by a part of a name", async () => {
    await using own = await testDatabase();
    await onServer(
      own.url,
      "INSERT INTO hawser_peer_data.topics (topic, id) SELECT 'topic-' || n, n FROM generate_series(1, 150) AS n",
      "INSERT INTO hawser_peer_data.channels (channel_name, channel_id) SELECT 'a:b:listener-' || n, n FROM generate_series(1, 149) AS n",
      // The greater the number, the older.
      `INSERT INTO hawser_peer_data.stored_messages (channel_id, epoch, number, topic_id, payload, stored_at)
       SELECT n, 1, 1, n, 'x', now() - n * interval '1 min' FROM generate_series(1, 149) AS n`,
      "INSERT INTO hawser_data.queue (topic, rank, id, payload, enqueued_at) VALUES ('topic-150', 1, 1, 'x', now() - interval '150 min')",
    );
    await using client = pageClient({ databaseUrl: own.url });
    const shown = async (path: string) => {
      const { text } = await client.get(path);
      const [section] = /<section id="pending".*?<\/section>/s.exec(text)!;
      const topics = [...section!.matchAll(/<tr><td><a [^>]*><bdi>topic-(\d+)<\/bdi>/g)].map(([, topic]) =>
        Number(topic),
      );
      return { topics, text: section!, next: />Next 100</.test(section!) };
    };
    const first = await shown("/backlog");
    expect(first.topics).toEqual(Array.from({ length: 100 }, (_, nth) => 150 - nth));
    expect(first.text).toContain('<span class="badge error"><bdi>unserved</bdi></span>');
    expect(first.text).toContain("<bdi>none is known</bdi>");
    expect(first.text).toContain('Rows 1 to 100. <a href="/backlog?from=100">Next 100</a>');
    const second = await shown("/backlog?from=100");
    expect(second).toMatchObject({ topics: Array.from({ length: 50 }, (_, nth) => 50 - nth), next: false });
    expect(second.text).toContain('<a href="/backlog">Previous 100</a>');
    expect((await shown("/backlog?filter=TOPIC-14")).topics).toEqual([
      149, 148, 147, 146, 145, 144, 143, 142, 141, 140, 14,
    ]);
    expect((await client.get("/backlog?filter=none")).text).toContain("There are no more, or none that match.");
    expect((await client.get("/peers?from=100&filter=listener-")).text).toContain("Rows 101 to 149.");
    expect((await client.get("/backlog?from=-1")).status).toBe(400);
    expect((await client.get("/backlog?from=1e9")).status).toBe(400);
  });

  it("lists each topic that has a message, a worker, a listener or a setting once, and their sum", async () => {
    await using own = await testDatabase();
    await onServer(
      own.url,
      "SELECT hawser.enqueue('alone', 'x'), hawser.enqueue('served', 'x'), hawser.enqueue('later', 'x', deliver_at => now() + interval '1 h')",
      "SELECT hawser.pause_topic('set'), hawser.limit_topic('served', running => 2)",
      `INSERT INTO hawser_data.workers (name, topics, lease_ms, concurrency)
       SELECT name, '{served,idle}', 15000, 1 FROM unnest('{one,two,two,three,four}'::text[]) AS name`,
      "INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name) VALUES ('served', '10.0.0.1:1', 'away')",
      `SELECT hawser.enqueue('stopped', 'x');
       INSERT INTO hawser_data.served_topics (role, topic, name, served_until) VALUES ('app', 'stopped', 'old-1', '2030-01-31T10:32:00Z')`,
    );
    await using client = pageClient({ databaseUrl: own.url });
    const { text } = await client.get("/topics");
    const rows = [...text.matchAll(/<tr><td>.*?<\/tr>/g)].map(([row]) =>
      row
        .replaceAll(/<time.*?<\/time>/g, "then")
        .replaceAll(/<input[^>]*>/g, "")
        .split(/<\/td>|<\/form>/)
        .map((cell) => cell.replaceAll(/<[^>]+>/g, "").trim())
        .filter((cell) => cell !== ""),
    );
    expect(rows).toEqual([
      ["alone", "unserved", "1", "then"],
      ["stopped", "stopped", "1", "then", "last served by old-1 until 2030-01-31T10:32Z"],
      ["idle", "running", "0", "four, one, three, 1 more"],
      ["later", "unserved", "0"],
      ["served", "running", "1", "then", "four, one, three, 2 more", "2 running"],
      ["set", "paused", "0", "then", "postgres"],
      ["Sum of these rows", "3"],
    ]);
    expect((await client.get("/topics?filter=10.0.0.1")).text.match(/<tr><td>/g)).toHaveLength(1);
  });

  it("shows causes that are new before those that are frequent, also to a login that sees counts alone", async () => {
    await using own = await testDatabase();
    await onServer(
      own.url,
      `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, created_at)
       SELECT 'queue', '', 'orders', 'x', code, code, 1, now() - hours * interval '1 h'
         FROM (VALUES ('old', 3), ('old', 3), ('new', 1), ('old', 0)) AS v (code, hours)`,
    );
    await using viewer = await viewerOf(own.url);
    for (const url of [own.url, viewer.url]) {
      await using client = pageClient({ databaseUrl: url });
      expect((await client.get("/causes")).text).toMatch(/<bdi>new<\/bdi>.*<bdi>old<\/bdi>/s);
    }
  });

  it("answers only for its host names, if it has some", async () => {
    await using client = pageClient({ databaseUrl: database.url, hosts: ["127.0.0.1"] });
    expect((await client.get("/dead")).status).toBe(200);
    expect((await client.handler(new Request("http://rebound.example:9470/dead"))).status).toBe(421);
  });

  it("shows all but dead letters, and no payload and no buttons, to a login with hawser_viewer alone", async () => {
    await using viewer = await viewerOf(database.url);
    await using client = pageClient({ databaseUrl: viewer.url });
    for (const path of [...places, "/dead/1", "/dead/1?payload=1", "/dead/1/payload"]) {
      const { text } = await client.get(path);
      expect(text, path).not.toContain("the-payload");
      expect(text, path).not.toMatch(/<form[^>]*method="post"|href="[^"]*payload/);
    }
    expect((await client.get("/dead/1/payload")).status).toBe(403);
    // The list and its count are read side by side: the first refusal is shown.
    expect((await client.get("/dead")).text).toMatch(
      /This login may not read it: <bdi>permission denied for (?:schema hawser_peer_data|view dead_letters)/,
    );
    for (const path of ["/", "/backlog", "/topics", "/peers", "/outbox", "/streams", "/schedules"])
      expect((await client.get(path)).text, path).not.toContain("may not read it");
    expect((await client.get("/")).text).toMatch(/<bdi>handler_failed<\/bdi>.*<td><bdi>orders<\/bdi>/);
    await using owner = pageClient({ databaseUrl: database.url, secret: "s".repeat(32) });
    const { fields } = formOf((await owner.get("/dead")).text, "Retry it");
    await using other = pageClient({ databaseUrl: viewer.url, secret: "s".repeat(32) });
    const request = new Request(`${origin}/dead/retry`, { method: "POST", body: new URLSearchParams(fields) });
    expect((await other.handler(request)).status).toBe(403);
  });

  it("shows 64-bit integers exactly", async () => {
    await using own = await testDatabase();
    await onServer(own.url, "UPDATE hawser_data.owners SET epoch = 9007199254740993, owner = 'x' WHERE what = 'serve'");
    await using client = pageClient({ databaseUrl: own.url });
    expect((await client.get("/outbox")).text).toContain("<dd>9007199254740993</dd>");
  });

  it("says that Postgres cannot be reached", async () => {
    await using client = pageClient({ databaseUrl: "postgres://nobody@127.0.0.1:1/none" });
    const { status, text } = await client.get("/dead");
    expect(status).toBe(503);
    expect(text).toContain("It could not be read");
  });

  it.each<[PageOptions, string]>([
    [{ pathPrefix: "ops" }, 'pathPrefix "ops": it begins with a slash'],
    [{ refreshMs: 1 }, "refreshMs 1"],
    [{ traceUrl: "javascript:{traceId}" }, "traceUrl"],
    [{ traceUrl: "https://example.com" }, "{traceId}"],
    [{ logUrl: "https://example.com" }, "{messageId}"],
    [{ metricsUrl: "ftp://example.com/{topic}" }, "metricsUrl"],
    [{ secret: "short" }, "secret: it has 5 characters"],
    [{ databaseURL: "x" } as PageOptions, "did you mean databaseUrl"],
    [{ descriptors: "/does/not/exist" }, "cannot be read"],
  ])("refuses the options %j", (options, message) => {
    expect(() => page(options)).toThrow(message);
  });
});

describe("the way of a message", () => {
  const trace = "0af7651916cd43dd8448eb211c80319c";
  const headers = `jsonb_build_object('traceparent', '00-${trace}-b7ad6b7169203331-01')`;

  /** A database with a session, and the sections of a message by their ids, without tags and times. */
  async function world() {
    const own = await testDatabase();
    const session = new pg.Client({ connectionString: own.url });
    await session.connect();
    onTestFinished(async () => {
      await session.end();
      await own.drop();
    });
    return {
      url: own.url,
      session,
      async sections(id: string, url = own.url): Promise<Record<string, string>> {
        await using client = pageClient({ databaseUrl: url, traceUrl: "https://traces.example/{traceId}" });
        const { status, text } = await client.get(`/message?${new URLSearchParams({ id })}`);
        expect(status).toBe(200);
        const found = [...text.matchAll(/<section id="([^"]+)"[^>]*>(.*?)<\/section>/gs)];
        const nothing = /<p role="status">(.*?)<\/p>/.exec(text)?.[1];
        const plain = (part: string) =>
          part
            .replaceAll(/<h2.*?<\/h2>|<time.*?<\/time>/gs, "")
            .replaceAll(/<(?!a )[^>]+>|<\/a>/g, "")
            .replaceAll(/\s+/g, " ")
            .trim();
        return Object.fromEntries([
          ...found.map(([, name, body]) => [name, plain(body!)]),
          ...(nothing === undefined ? [] : [["nothing", nothing]]),
        ]);
      },
    };
  }
  const nothing = "It is not there.";

  it("waits for the relay to NATS, and then is behind its position", async () => {
    const { session, sections } = await world();
    const { rows } = await session.query(
      `SELECT hawser.enqueue('orders.new', 'x', stream => true, message_id => 'order-17', headers => ${headers}) AS id`,
    );
    const waiting = await sections("order-17");
    expect(waiting["outbox"]).toMatch(/^Message 1 for the subject orders.new, enqueued +by postgres. Waits for the /);
    expect(waiting["outbox"]).toContain(`Trace: <a rel="noreferrer" href="https://traces.example/${trace}">`);
    expect(waiting).toMatchObject({ scheduled: nothing, stored: nothing, saved: nothing, dead: nothing });
    expect((await sections(rows[0].id))["outbox"]).toContain("Waits for the ");
    const { turn, position } = await takeNats(session, "relay");
    const { to } = await natsTurn(session, "relay", {
      turn: turn + 1n,
      position,
      read: { kind: "poll", from: position.from },
      mustSave: true,
    });
    await natsTurn(session, "relay", { turn: turn + 2n, position: { ...position, from: to }, mustSave: true });
    for (const id of ["order-17", rows[0].id])
      expect((await sections(id))["outbox"]).toContain(
        "has passed it: it was published into a stream, or is a dead letter.",
      );
  });

  it("is found by the id that the relay makes, as a copy of it is", async () => {
    const { session, sections } = await world();
    await session.query("SELECT hawser.enqueue('orders.new', 'x', stream => true)");
    await session.query("SELECT hawser.outbox_replay(now() - interval '1 minute')");
    const first = (await sections("1"))["outbox"]!;
    const [, id] = /Its messageId: <a href="\/message\?id=([0-9a-f]{32})">/.exec(first)!;
    expect(first).toMatch(/Message 2 .*published again, copy of <a href="\/message\?id=1">message 1/);
    expect((await sections(id!))["outbox"]).toMatch(/^Message 1 .*Message 2 /);
    await session.query(
      `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, message_id)
       VALUES ('outbox', '', 'orders.new', 'x', 'no_stream', 'm', 1, $1)`,
      [id],
    );
    expect((await sections("1"))["dead"]).toContain(
      '<a href="/dead/1">Dead letter 1 (outbox) on orders.new: no_stream',
    );
  });

  it("is in the queue until a peer has handled it, and says who has it", async () => {
    const { session, sections } = await world();
    const enqueue = (options: string) =>
      session.query(`SELECT hawser.enqueue('orders', 'x', message_id => 'order-17', headers => ${headers}${options})`);
    await enqueue(", to_all => true");
    const { rows } = await session.query("SELECT hawser.enqueue('orders', 'x', priority => 32767) AS id");
    const high = rows[0].id;
    expect((await sections(high))["queue"]).toMatch(
      /^Message \d+ for the topic orders with the priority 32767, enqueued /,
    );
    expect((await sections(high))["queue"]).toContain(
      "Waits. No worker serves the topic &quot;orders&quot;. Start a worker that handles &quot;orders&quot;.",
    );
    await session.query("SELECT hawser.cancel($1)", [high]);
    for (const id of ["1", "order-17"]) {
      const { queue, outbox, stored } = await sections(id);
      expect(queue).toMatch(/^Message 1 for the topic orders, for all listeners, enqueued +by postgres. Waits. /);
      expect(queue).toContain(`Trace: <a rel="noreferrer" href="https://traces.example/${trace}">`);
      expect({ outbox, stored }).toEqual({ outbox: nothing, stored: nothing });
    }
    expect((await sections("1"))["queue"]).toContain('Its messageId: <a href="/message?id=order-17">order-17');
    await session.query(
      `INSERT INTO hawser_data.workers (id, name, topics, lease_ms, concurrency) VALUES (1, 'one', '{orders}', 15000, 1);
       UPDATE hawser_data.queue SET recipient = '@one', attempts = 3, worker = 1`,
    );
    expect((await sections("1"))["queue"]).toContain(
      "orders (listener one), enqueued by postgres. one has it after 3 failed attempts.",
    );
    await session.query(
      "UPDATE hawser_data.queue SET recipient = '#reds', attempts = 1, worker = NULL, due_at = now()",
    );
    expect((await sections("1"))["queue"]).toMatch(/orders \(group reds\), .* Is tried again after 1 failed attempt\./);
    await session.query("DELETE FROM hawser_data.queue");
    expect((await sections("1"))["nothing"]).toBe("Nothing is known of it. It may be a message");
  });

  it("has ended, and what became of it is shown while that is kept, to members of its role", async () => {
    const { session, sections, url } = await world();
    await session.query(
      `INSERT INTO hawser_data.results (segment, id, role, topic, listener, state, attempts, enqueued_at, ended_at, duration_ms, result, error_code, error_message, expires_at)
       VALUES (0, 17, 'shop', 'pdfs', 'pdfs-1', 'done', 1, now(), now(), 42, '{"pages": "<b>"}', NULL, NULL, now() + interval '60 min'),
              (0, 18, 'shop', 'pdfs', 'pdfs-1', 'dead', 5, now(), now(), NULL, NULL, 'handler_failed', 'no ink', now() + interval '60 min'),
              (0, 19, 'shop', 'pdfs', NULL, 'cancelled', 0, now(), now(), NULL, NULL, NULL, NULL, now())`,
    );
    expect(await sections("17")).toMatchObject({
      ended:
        'Message 17 for the topic pdfs, enqueued by shop. Handled by pdfs-1 after 1 attempt , in 42 ms. Result: {&quot;pages&quot;: &quot;&lt;b&gt;&quot;}. Kept for another . <a href="/message/like?id=17">Enqueue another one like it.',
      queue: nothing,
    });
    expect((await sections("18"))["ended"]).toContain(
      "Given up by pdfs-1 after 5 attempts . Error: handler_failed: no ink.",
    );
    expect((await sections("19"))["ended"]).toBe(nothing);
    await using peer = await login(url, "IN ROLE hawser_peer");
    expect((await sections("17", peer.url))["ended"]).toBe(nothing);
    await using viewer = await viewerOf(url);
    expect((await sections("17", viewer.url))["ended"]).toBe(
      "This login may not read it: permission denied for function job",
    );
  });

  it("is stored for a peer, or has left its channel for the queue, and is known by its place", async () => {
    const { session, sections } = await world();
    await session.query("INSERT INTO hawser_peer_data.topics (topic, id) VALUES ('orders', 1)");
    await session.query(
      "INSERT INTO hawser_peer_data.channels (channel_name, channel_id) VALUES ('shop:shop:one', 1), ('shop:shop:two', 2)",
    );
    await session.query(
      `INSERT INTO hawser_peer_data.stored_messages (channel_id, payload, epoch, number, topic_id, headers)
       SELECT n, 'x', 7, 1, 1, '[["message-id","order-17"]]' FROM generate_series(1, 2) AS n`,
    );
    const { stored: both } = await sections("order-17");
    for (const name of ["one", "two"])
      expect(both).toMatch(new RegExp(`shop:shop:${name}/7/1 on the topic orders for ${name}, stored *; waits.`));
    const place = "shop:shop:one/7/1";
    const { stored, queue } = await sections(place);
    expect(stored).toContain('waits. Its messageId: <a href="/message?id=order-17">order-17');
    expect(stored).not.toContain(":two/");
    expect(queue).toBe(nothing);
    await session.query(
      `INSERT INTO hawser_data.queue (topic, recipient, role, rank, id, attempts, key, origin, payload, headers, message_id, channel_id)
       VALUES ('orders', '@one', session_user, 5, 5, 3, '1:lane', 'shop:shop', 'x', '[["message-id","order-17"]]', $1, 1)`,
      [place],
    );
    await session.query("INSERT INTO hawser_peer_data.cursors (channel_id, epoch, number) VALUES (1, 7, 1)");
    const gone = "it was handled, or has left its channel for the queue.";
    expect((await sections(place))["stored"]).toContain(`; ${gone}`);
    await session.query("DELETE FROM hawser_peer_data.stored_messages WHERE channel_id = 1");
    expect((await sections(place))["stored"]).toBe(`The listener one has gone past it: ${gone}`);
    for (const id of [place, "order-17", "5"])
      expect((await sections(id))["queue"]).toMatch(
        /^Message 5 for the topic orders \(listener one\), sent as shop:shop:one\/7\/1, in the queue since *. Waits after 3 failed attempts./,
      );
  });

  it("is one message of a batch", async () => {
    const { session, sections } = await world();
    await session.query("INSERT INTO hawser_peer_data.channels (channel_name, channel_id) VALUES ('shop:shop:one', 1)");
    await session.query(
      `INSERT INTO hawser_peer_data.stored_messages (channel_id, payload, epoch, number, headers, messages, lengths)
       VALUES (1, 'abc', 7, 12, '[[["message-id","a"]],null,[["message-id","c"]]]', 3, '{1,1,1}')`,
    );
    expect((await sections("c"))["stored"]).toContain("shop:shop:one/7/12 on");
    expect((await sections("a"))["stored"]).toContain("shop:shop:one/7/10 on");
    expect((await sections("shop:shop:one/7/10"))["stored"]).toContain('Id: <a href="/message?id=a">');
    expect((await sections("shop:shop:one/7/11"))["stored"]).toMatch(/one\/7\/11 on .*waits.$/);
  });

  it("is no other message that has the id as the name of a header, or any id if the id is that name", async () => {
    const { session, sections } = await world();
    const turned = JSON.stringify([["order-17", "message-id"]]);
    await session.query("SELECT hawser.enqueue('orders', 'x', headers => '{\"order-17\": \"message-id\"}')");
    await session.query("SELECT hawser.enqueue('orders', 'x', message_id => 'other')");
    await session.query("INSERT INTO hawser_peer_data.channels (channel_name, channel_id) VALUES ('s:t:l', 1)");
    await session.query(
      `INSERT INTO hawser_peer_data.stored_messages (channel_id, payload, epoch, number, headers, messages, lengths)
       VALUES (1, 'x', 1, 1, $1, 1, '{}'), (1, 'x', 1, 2, '[["message-id","other"]]', 1, '{}'),
              (1, 'xx', 1, 4, jsonb_build_array($1::jsonb, '[["message-id","other"]]'::jsonb), 2, '{1,1}')`,
      [turned],
    );
    await session.query(
      `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, headers, error_code, error_message, attempts)
       VALUES ('queue', '', 'orders', 'x', $1, 'c', 'm', 1), ('queue', '', 'orders', 'x', '[["message-id","other"]]', 'c', 'm', 1)`,
      [turned],
    );
    for (const id of ["order-17", "message-id"])
      expect(await sections(id), id).toMatchObject({ queue: nothing, stored: nothing, dead: nothing });
    const { queue, stored, dead } = await sections("other");
    expect(queue).toMatch(/^Message 2 /);
    expect(stored).toMatch(/^s:t:l\/1\/2 .* s:t:l\/1\/4 /);
    expect(dead).toContain("Dead letter 2 ");
  });

  it("may be one of more than are shown by its id", async () => {
    const { session, sections } = await world();
    const enqueue = (count: number) =>
      session.query("SELECT hawser.enqueue('orders', 'x', message_id => 'order-17') FROM generate_series(1, $1::int)", [
        count,
      ]);
    await enqueue(9);
    expect((await sections("order-17"))["queue"]).not.toContain("there may be more");
    await enqueue(2);
    const { queue } = await sections("order-17");
    expect(queue).toContain("Message 10 ");
    expect(queue).toMatch(/At most 10 are shown by one id: there may be more.$/);
    await session.query("INSERT INTO hawser_peer_data.channels (channel_name, channel_id) VALUES ('s:t:l', 1)");
    await session.query(
      `INSERT INTO hawser_peer_data.stored_messages (channel_id, payload, epoch, number, headers)
       SELECT 1, 'x', 1, n, '[["message-id","order-17"]]' FROM generate_series(1, 11) AS n`,
    );
    expect((await sections("order-17"))["stored"]).toMatch(/At most 10 are shown by one id: there may be more.$/);
  });

  it("is saved for a subscription, which knows it by the id of its stream", async () => {
    const { session, sections } = await world();
    await session.query(
      `INSERT INTO hawser_bridge_data.nats_handlers (id, kind, subject, function_schema, function_name, argument_types, wrapper, token)
       VALUES (9007199254740993, 'stream', 'orders', 'public', 'take', 'bytea', 'w', sha256('t'))`,
    );
    await session.query(
      `INSERT INTO hawser_bridge_data.saved_messages (handler_id, subject, payload, headers, message_id)
       VALUES (9007199254740993, 'orders.new', 'x', '{"Nats-Msg-Id":["order-17"]}', 'orders-1')`,
    );
    for (const id of ["order-17", "orders-1"])
      expect((await sections(id))["saved"]).toBe("Received on orders.new for the function public.take, saved ; waits.");
    expect((await sections("order-1"))["saved"]).toBe(nothing);
  });

  it("is due later, and is in none of the other places", async () => {
    const { session, sections } = await world();
    await session.query(
      "SELECT hawser.enqueue('orders', '<b>', message_id => '<b>', deliver_at => now() + interval '1 day')",
    );
    for (const id of ["1", "<b>"]) {
      const found = await sections(id);
      expect(found["scheduled"]).toMatch(/^Message 1 for orders, enqueued *, is due /);
      expect(found).toMatchObject({ outbox: nothing, queue: nothing, stored: nothing, saved: nothing, dead: nothing });
      expect(found["nothing"]).toBeUndefined();
    }
    expect((await sections("2"))["nothing"]).toBe("Nothing is known of it. It may be a message");
  });

  it("is held, until others have been handled", async () => {
    const { session, sections } = await world();
    await session.query("SELECT hawser.enqueue_after('orders', 'x', after => ARRAY[hawser.enqueue('orders', 'y')])");
    expect((await sections("2"))["scheduled"]).toMatch(
      /^Message 2 for orders, enqueued *, is held until 1 message before it has been handled \(1\)\. Then /,
    );
  });

  it("is found by its number, also where there is too much to read for its id", async () => {
    const { session, sections } = await world();
    await session.query(
      "SELECT hawser.enqueue('orders', 'x', deliver_at => now() + interval '1 day') FROM generate_series(1, 2)",
    );
    await session.query(`
      CREATE FUNCTION public.too_much(bigint) RETURNS text STABLE LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'canceled' USING ERRCODE = 'query_canceled'; END
      $$;
      CREATE OR REPLACE VIEW hawser.later_messages AS
        SELECT id, later AS kind, due_at AS deliver_at, topic AS destination, key, public.too_much(id) AS message_id, octet_length(payload) AS payload_bytes, enqueued_at, 0::smallint AS priority, 0 AS held_for, NULL::jsonb AS waits_for
          FROM hawser_data.queue WHERE later IS NOT NULL`);
    expect((await sections("1"))["scheduled"]).toMatch(/^Message 1 for orders, .* because there is too much to read/);
  });

  it("ends as a dead letter, also by the place that it had in its channel", async () => {
    const { session, sections } = await world();
    await session.query("INSERT INTO hawser_peer_data.channels (channel_name, channel_id) VALUES ('s:t:l', 1)");
    await session.query(
      `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, headers, error_code, error_message, attempts, channel_id, job_id, message_id)
       VALUES ('queue', '@l', 'orders', 'x', '[["message-id","order-16"]]', 'handler_failed', 'm', 1, 1, 16, 's:t:l/3/9007199254740993'),
              ('subscription', 'public.f', 'orders.new', 'x', '[["Nats-Msg-Id","order-17"]]', 'P0001', 'm', 1, NULL, NULL, NULL)`,
    );
    for (const id of ["s:t:l/3/9007199254740993", "order-16"])
      expect((await sections(id))["dead"]).toContain(
        '<a href="/dead/1">Dead letter 1 (queue) on orders: handler_failed',
      );
    expect((await sections("order-16"))["dead"]).toContain(
      'Its messageId: <a href="/message?id=s%3At%3Al%2F3%2F9007199254740993">',
    );
    expect((await sections("order-17"))["dead"]).toContain("Dead letter 2 (subscription) on orders.new");
    await session.query(
      `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, job_id, message_id)
       VALUES ('queue', '', 'orders', 'x', 'handler_failed', 'm', 1, 17, '17')`,
    );
    expect((await sections("17"))["dead"]).toContain("Dead letter 3 (queue) on orders: handler_failed");
  });

  it("is shown as far as the login may read it", async () => {
    const { url, session, sections } = await world();
    await session.query("SELECT hawser.enqueue('orders.new', 'x', stream => true, message_id => 'order-17')");
    await session.query("INSERT INTO hawser_peer_data.channels (channel_name, channel_id) VALUES ('s:t:l', 1)");
    await session.query(
      "INSERT INTO hawser_peer_data.stored_messages (channel_id, payload, headers) VALUES (1, 'x', '[[\"message-id\",\"order-17\"]]')",
    );
    await using stranger = await login(url);
    const denied = await sections("order-17", stranger.url);
    for (const id of ["scheduled", "outbox", "queue", "stored", "saved", "dead"])
      expect(denied[id]).toMatch(/^This login may not read it: permission denied for [\w ]+$/);
    expect(denied["nothing"]).toBe("Nothing is known of it in the parts that could be read. It may be a message");
    await using peer = await login(url, "IN ROLE hawser_peer");
    const partly = await sections("order-17", peer.url);
    // The message of another role.
    expect(partly["outbox"]).toBe(nothing);
    expect(partly["stored"]).toContain("s:t:l/0/0");
    expect(partly["saved"]).toBe("This login may not read it: permission denied for schema hawser_bridge_data");
    await onServer(peer.url, "SELECT hawser.enqueue('orders', 'x', message_id => 'mine')");
    expect((await sections("mine", peer.url))["queue"]).toContain(`by ${peer.role}. Waits.`);
    expect(await sections("1' OR true --/1/1", peer.url)).toMatchObject({ outbox: nothing, stored: nothing });
  });
});

describe("the page below a prefix", () => {
  const ops = () => page({ databaseUrl: database.url, pathPrefix: "/ops" });

  const servers: Readonly<Record<string, (handler: ReturnType<typeof ops>) => Promise<AddressInfo>>> = {
    Express: (handler) => listening(express().use("/ops", handler.listener).listen(0, "127.0.0.1")),
    async Fastify(handler) {
      const app = fastify();
      app.addHook("onRequest", (request, reply, next) =>
        request.url.startsWith("/ops") ? void handler.listener(request.raw, reply.hijack().raw) : next(),
      );
      await app.listen({ port: 0, host: "127.0.0.1" });
      return listening(app.server);
    },
    Hono(handler) {
      const app = new Hono();
      app.all("/ops/*", (c) => handler(c.req.raw));
      return listening(serve({ fetch: app.fetch, port: 0, hostname: "127.0.0.1" }) as Server);
    },
    "node:http": (handler) => listening(createServer(handler.listener).listen(0, "127.0.0.1")),
  };

  /** Address of a server once it listens. The server closes with the test. */
  async function listening(server: Server): Promise<AddressInfo> {
    onTestFinished(() => {
      server.close();
      server.closeAllConnections();
    });
    if (!server.listening) await once(server, "listening");
    return server.address() as AddressInfo;
  }

  it("refuses a URL that cannot be parsed, without a word in the log", async () => {
    const told: unknown[] = [];
    const logger = { ...silentLogger, error: (details: unknown) => void told.push(details) };
    await using handler = page({ databaseUrl: database.url, logger });
    const { port } = await listening(createServer(handler.listener).listen(0, "127.0.0.1"));
    const socket = connect(port, "127.0.0.1");
    socket.write("GET / HTTP/1.1\r\nHost: 256.256.256.256\r\nConnection: close\r\n\r\n");
    expect(await textOf(socket)).toMatch(/^HTTP\/1.1 400 /);
    expect(told).toEqual([]);
  });

  it.each(Object.entries(servers))("works in %s", async (_, start) => {
    await using handler = ops();
    const { port } = await start(handler);
    const at = `http://127.0.0.1:${port}`;
    const response = await fetch(`${at}/ops/dead`);
    const text = await response.text();
    expect(response.status).toBe(200);
    expect(text).toContain('href="/ops/style.css"');
    expect(text).not.toMatch(/(href|action)="\/(?!ops\/)/);
    expect((await fetch(`${at}/ops/style.css`)).status).toBe(200);
    const { action, fields } = formOf(text, "Discard it");
    const asked = await fetch(`${at}${action}`, { method: "POST", body: new URLSearchParams(fields) });
    expect(await asked.text()).toContain("1 dead letter will be deleted");
  });
});
