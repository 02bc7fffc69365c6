/** Protection, rendering and mounting of the page. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { serve } from "@hono/node-server";
import express from "express";
import fastify from "fastify";
import { Hono } from "hono";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { pageConstants } from "../../generated/ts/settings/page.js";
import { type PageOptions, page } from "../../src/page/index.js";
import { openStore } from "../../src/store/index.js";
import { login } from "../store/nats/support/logins.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { formOf, origin, pageClient } from "./support/page-world.js";

let database: TestDatabase;
beforeAll(async () => {
  database = await testDatabase();
  await onServer(
    database.url,
    `INSERT INTO hawser.dead_letters (origin, source, topic, payload, error_code, error_message, attempts)
     VALUES ('peer', 's:t:l', 'orders', 'the-payload', 'handler_failed', 'm', 1)`,
  );
});
afterAll(() => database.drop());

const places = [
  "/",
  "/dead",
  "/backlog",
  "/peers",
  "/outbox",
  "/streams",
  "/schedules",
  "/message",
  "/message?id=a/1/2",
  "/jobs",
];

describe("the page", () => {
  it.each(places)("has headings, a language and named landmarks at %s", async (path) => {
    await using client = pageClient({ databaseUrl: database.url });
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

  it("allows neither scripts nor frames, and nothing of other origins", async () => {
    await using client = pageClient({ databaseUrl: database.url });
    const { text, headers } = await client.get("/");
    expect(headers.get("content-security-policy")).toBe(
      "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    );
    expect(headers.get("cache-control")).toBe("no-store");
    expect(headers.get("x-content-type-options")).toBe("nosniff");
    expect(text).not.toMatch(/<script|<style|style=|\son\w+=|https?:/);
  });

  it("shows the verdict of hawser doctor when it is there", async () => {
    await using client = pageClient({ databaseUrl: database.url });
    await eventually("there is a verdict", async () => (await client.get("/")).text.includes("Examined "));
    expect((await client.get("/")).text).toMatch(/checks? of \d+ done/);
  });

  it("reloads itself, unless that is paused", async () => {
    await using client = pageClient({ databaseUrl: database.url, refreshMs: 5_000 });
    expect((await client.get("/peers")).headers.get("refresh")).toBe("5");
    const paused = await client.get("/peers?paused=1");
    expect(paused.headers.get("refresh")).toBeNull();
    expect(paused.text).toContain("Reload every 5 seconds");
    expect((await client.get("/dead")).headers.get("refresh")).toBeNull();
  });

  it("refuses forms of other sites, without a token, and with a wrong one", async () => {
    await using client = pageClient({ databaseUrl: database.url });
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
    expect(await rowsOf(database.url, "SELECT FROM hawser.dead_letters")).toHaveLength(1);
    expect((await client.get(action)).status).toBe(400);
  });

  it("follows links of other sites, and lets them neither embed a page nor load it in the background", async () => {
    await using client = pageClient({ databaseUrl: database.url });
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
    await using client = pageClient({ databaseUrl: database.url });
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
    await using client = pageClient({ databaseUrl: database.url });
    const { openRequests } = pageConstants;
    const answers = await Promise.all(Array.from({ length: openRequests + 5 }, () => client.get("/peers")));
    const statuses = answers.map(({ status }) => status);
    expect(statuses.filter((status) => status === 200)).toHaveLength(openRequests);
    expect(statuses.filter((status) => status === 503)).toHaveLength(5);
    expect((await client.get("/peers")).status).toBe(200);
  });

  it("shows times that no date can have", async () => {
    await using own = await testDatabase();
    const insert = `INSERT INTO hawser.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, created_at)
      VALUES ('peer', 's:t:l', 'orders', 'x', 'c', 'm', 1,`;
    await onServer(own.url, `${insert} 'infinity')`, `${insert} '-infinity')`, `${insert} '290000-01-01')`);
    await using client = pageClient({ databaseUrl: own.url });
    expect((await client.get("/dead")).text).toMatch(/<td>never<.*<td>always<.*<td>a time out of range</s);
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
    const rows = [...table!.matchAll(/<tr><td><bdi>(\w+)<\/bdi>.*?<\/tr>/g)];
    const shown = rows.map(([row, name]) => [
      name,
      row.includes(`&lt;b&gt;${name}<span class="mark">U+001B</span>[2J<span class="mark">U+202E</span>`),
      /<strong class="(\w+)"><time/.exec(row)?.[1],
      /(in \d+ days|24 h ago)\)/.exec(row)?.[1],
    ]);
    expect(shown).toEqual([
      ["ended", true, "error", "24 h ago"],
      ["later", true, undefined, "in 15 days"],
      ["soon", true, "warning", "in 13 days"],
      ["stopped", true, undefined, "24 h ago"],
    ]);
  });

  it("answers only for its host names, if it has some", async () => {
    await using client = pageClient({ databaseUrl: database.url, hosts: ["127.0.0.1"] });
    expect((await client.get("/dead")).status).toBe(200);
    expect((await client.handler(new Request("http://rebound.example:9470/dead"))).status).toBe(421);
  });

  it("shows neither payload nor buttons to a login that reads status views only", async () => {
    await using viewer = await login(database.url);
    await onServer(
      database.url,
      `GRANT USAGE ON SCHEMA hawser TO ${viewer.role}`,
      `GRANT SELECT ON hawser.outbox_status, hawser.stream_status, hawser.schedule_status, hawser.bridge_lead TO ${viewer.role}`,
      `GRANT EXECUTE ON FUNCTION hawser.outbox_undone TO ${viewer.role}`,
    );
    await using client = pageClient({ databaseUrl: viewer.url });
    for (const path of [...places, "/dead/1", "/dead/1?payload=1", "/dead/1/payload"]) {
      const { text } = await client.get(path);
      expect(text, path).not.toContain("the-payload");
      expect(text, path).not.toMatch(/<form[^>]*method="post"/);
    }
    expect((await client.get("/dead/1/payload")).status).toBe(403);
    expect((await client.get("/dead")).text).toContain(
      "This login may not read it: <bdi>permission denied for table dead_letters",
    );
    for (const path of ["/streams", "/schedules"])
      expect((await client.get(path)).text).not.toContain("may not read it");
    const denied = (await client.get("/outbox")).text.match(/permission denied for [\w ]+/g);
    expect(denied).toEqual(["permission denied for view outbox_scheduled"]);
    await using owner = pageClient({ databaseUrl: database.url, secret: "s".repeat(32) });
    const { fields } = formOf((await owner.get("/dead")).text, "Retry it");
    await using other = pageClient({ databaseUrl: viewer.url, secret: "s".repeat(32) });
    const request = new Request(`${origin}/dead/retry`, { method: "POST", body: new URLSearchParams(fields) });
    expect((await other.handler(request)).status).toBe(403);
  });

  it("shows 64-bit integers exactly", async () => {
    await using own = await testDatabase();
    await onServer(own.url, "UPDATE hawser.owners SET epoch = 9007199254740993, owner = 'x' WHERE what = 'serve'");
    await using client = pageClient({ databaseUrl: own.url });
    expect((await client.get("/")).text).toContain("<dd>9007199254740993</dd>");
  });

  it("says that Postgres cannot be reached", async () => {
    await using client = pageClient({ databaseUrl: "postgres://nobody@127.0.0.1:1/none" });
    const { status, text } = await client.get("/dead");
    expect(status).toBe(200);
    expect(text).toContain("It could not be read");
  });

  it.each<[PageOptions, string]>([
    [{ pathPrefix: "ops" }, 'pathPrefix "ops": it begins with a slash'],
    [{ refreshMs: 1 }, "refreshMs 1"],
    [{ traceUrl: "javascript:{traceId}" }, "traceUrl"],
    [{ traceUrl: "https://example.com" }, "{traceId}"],
    [{ secret: "short" }, "secret: it has 5 characters"],
    [{ databaseURL: "x" } as PageOptions, "did you mean databaseUrl"],
    [{ descriptors: "/does/not/exist" }, "cannot be read"],
  ])("refuses the options %j", (options, message) => {
    expect(() => page(options)).toThrow(message);
  });
});

describe("the page below a prefix", () => {
  /** Checks that the page answers at a port, and that its forms do. */
  async function check(port: number): Promise<void> {
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
  }
  const ops = () => page({ databaseUrl: database.url, pathPrefix: "/ops" });

  it("works in Express", async () => {
    await using handler = ops();
    const app = express();
    app.use("/ops", handler.listener);
    const server = app.listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    await check((server.address() as AddressInfo).port);
    server.close();
    server.closeAllConnections();
  });

  it("works in Fastify", async () => {
    await using handler = ops();
    const app = fastify();
    app.addHook("onRequest", (request, reply, next) =>
      request.url.startsWith("/ops") ? void handler.listener(request.raw, reply.hijack().raw) : next(),
    );
    await app.listen({ port: 0, host: "127.0.0.1" });
    await check((app.server.address() as AddressInfo).port);
    app.server.closeAllConnections();
    await app.close();
  });

  it("works in Hono", async () => {
    await using handler = ops();
    const app = new Hono();
    app.all("/ops/*", (c) => handler(c.req.raw));
    const server = serve({ fetch: app.fetch, port: 0, hostname: "127.0.0.1" });
    await new Promise((resolve) => server.once("listening", () => resolve(undefined)));
    await check((server.address() as AddressInfo).port);
    server.close();
  });

  it("works in node:http", async () => {
    await using handler = ops();
    const server = createServer(handler.listener);
    server.listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", () => resolve(undefined)));
    await check((server.address() as AddressInfo).port);
    server.close();
    server.closeAllConnections();
  });
});
