/** Recording of the operator's page as a static site. */
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { recordPages } from "../../scripts/docs/recording.js";
import { origin, pageClient } from "../page/support/page-world.js";
import { type TestDatabase, testDatabase } from "../support/database.js";

let database: TestDatabase;
let files: ReadonlyMap<string, string>;
beforeAll(async () => {
  database = await testDatabase({ nats: false });
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  await client.query("SELECT hawser.enqueue('50% & <more>', 'x'::text) FROM generate_series(1, 30)");
  await client.query("SELECT hawser.schedule('nightly', '0 3 * * *', 'reports', 'x'::text)");
  await client.query(
    `INSERT INTO hawser_data.dead_letters (topic, payload, error_code, error_message, attempts, job_id, origin, source)
     VALUES ('mail', 'x', 'handler_failed', 'see https://example.com/?a=b and <form method="post">', 1, 99, 'queue', '')`,
  );
  await client.end();
  await using page = pageClient({ databaseUrl: database.url });
  files = await recordPages((path) => page.handler(new Request(`${origin}${path}`)));
});
afterAll(() => database?.drop());

const pages = () => [...files].filter(([name]) => name.endsWith(".html"));

it("has the pages of the navigation, and of what they list", () => {
  const has = [
    "index",
    "topics",
    "backlog",
    "jobs",
    "dead",
    "dead-1",
    "peers",
    "schedules",
    "audit",
    "topic-name-50-more",
  ];
  for (const name of has) expect(files.get(`${name}.html`), name).toContain("<h1>");
  expect(files.get("topic-name-50-more.html")).toContain("50% &amp; &lt;");
  expect(files.get("style.css")).toContain("body");
  expect(pages().filter(([name]) => name.startsWith("message-id-")).length).toBeLessThan(10);
});

it("has only links that lead to a file of it, with the place on the page", () => {
  const broken = pages().flatMap(([name, text]) =>
    [...text.matchAll(/ (?:href|src|action)="([^"#]*)(?:#([^"]*))?"/g)].flatMap(([, target, hash]) => {
      const at = target === "" ? text : files.get(target!);
      return at !== undefined && (hash === undefined || at.includes(` id="${hash}"`))
        ? []
        : [`${name}: ${target}#${hash}`];
    }),
  );
  expect(broken).toEqual([]);
  expect(files.get("index.html")).toContain('href="topics.html"');
});

it("sends no form, runs no script, has no token, and says that it is a recording", () => {
  for (const [name, text] of pages()) {
    expect(text, name).not.toMatch(/<form [^>]*(method|action)=|<script|http-equiv|name="token"|data-refresh-ms/);
    for (const [field] of text.matchAll(/<(?:button|input|select|textarea)\b[^>]*>/g))
      expect(field, name).toContain(" disabled");
    expect(text, name).toContain("This is a recording of a busy system");
    expect(text, name).not.toContain("Stop reloading");
  }
  // What is shown of a message stays as it is.
  expect(files.get("dead-1.html")).toContain("&lt;form method=&quot;post&quot;&gt;");
});
