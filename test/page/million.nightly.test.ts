/** The page over 1,000,000 dead letters: it reads a bounded number of rows. */

import { afterAll, beforeAll, expect, it } from "vitest";
import { examinedDeadLetters, shownRows } from "../../src/operating/console/sections.js";
import { deadLetterCausesSql } from "../../src/operating/operate/dead-letter-causes.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { pageClient } from "./support/page-world.js";

const count = 1_000_000;
let database: TestDatabase;

beforeAll(async () => {
  database = await testDatabase();
  await onServer(
    database.url,
    `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts)
     SELECT 'queue', '', 'orders-' || n % 7, convert_to(repeat('x', 200), 'UTF8'), 'handler_failed', 'order ' || n || ' is unknown', 1
       FROM generate_series(1, ${count}) AS n`,
    "ANALYZE hawser_data.dead_letters",
    "SELECT pg_stat_reset()",
  );
}, 300_000);
afterAll(() => database.drop());

it("the page opens with a look at the newest dead letters, and lists the first ones", async () => {
  await using client = pageClient({ databaseUrl: database.url });
  // Connects, and starts the examination, which reads the table in the background.
  await client.get("/actions");
  const { text } = await client.get("/causes");
  const list = await client.get("/dead?origin=queue&topic=orders-3");
  expect(text).toContain(`The newest ${examinedDeadLetters} dead letters are examined`);
  expect(text).toContain("order # is unknown");
  expect(list.text).toContain(`More than ${examinedDeadLetters} dead letters match`);
  expect(list.text.match(/href="\/dead\/\d+"/g)).toHaveLength(shownRows);
});

it("the page reads the newest of 1,000,000 dead letters by the primary key", async () => {
  const plan = await rowsOf(database.url, `EXPLAIN (ANALYZE, FORMAT JSON) ${overviewQuery()}`);
  const nodes = nodesOf((plan[0]!["QUERY PLAN"] as { readonly Plan: PlanNode }[])[0]!.Plan);
  const scans = nodes.filter((node) => node["Relation Name"] === "dead_letters");
  expect(scans.map((node) => node["Node Type"])).toEqual(["Index Scan"]);
  expect(scans[0]!["Actual Rows"]).toBe(examinedDeadLetters);
});

it("the page finds dead letters by a rare cause, or says that there is too much to read; it asks before it discards", async () => {
  await onServer(
    database.url,
    `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts)
     VALUES ('queue', '', 'orders-3', 'x', 'handler_failed', 'rare', 1)`,
  );
  await using client = pageClient({ databaseUrl: database.url });
  for (const path of ["/dead?cause=rare", "/dead?cause=rare&topic=orders-3"])
    expect((await client.get(path)).text).toMatch(/1 dead letter matches|there is too much to read/);
  const { status, headers } = await client.submit("/dead?topic=orders-3&code=handler_failed", "Discard all that match");
  expect([status, headers.get("location")]).toEqual([200, null]);
});

it("the page finds a message among 1,000,000 that wait by its number, and by its id unless there is too much to read", async () => {
  await onServer(
    database.url,
    `INSERT INTO hawser_data.outbox (segment, destination, payload, headers, message_id, to_stream)
     SELECT 0, 'orders.' || n % 7, convert_to(repeat('x', 200), 'UTF8'), '{"a": "b"}', CASE WHEN n % 2 = 0 THEN 'order-' || n END, true
       FROM generate_series(1, ${count}) AS n`,
    "INSERT INTO hawser_peer_data.channels (channel_name, channel_id) VALUES ('s:t:l', 1)",
    `INSERT INTO hawser_peer_data.stored_messages (channel_id, epoch, number, payload, headers)
     SELECT 1, 1, n, convert_to(repeat('x', 200), 'UTF8'), jsonb_build_array(jsonb_build_array('message-id', 'sent-' || n))
       FROM generate_series(1, ${count}) AS n`,
  );
  await using client = pageClient({ databaseUrl: database.url });
  const numbered = await client.get("/message?id=777777");
  expect(numbered.text).toContain("Message 777777 for the subject");
  for (const [id, part] of [
    ["order-777776", "Message 777776 for the subject"],
    ["sent-777777", "s:t:l/1/777777"],
    ["0123456789abcdef0123456789abcdef", ""],
  ] as const) {
    const { status, text } = await client.get(`/message?id=${id}`);
    expect(status).toBe(200);
    expect(text.match(/<section /g)).toHaveLength(7);
    if (!text.includes("there is too much to read")) expect(text).toContain(part);
  }
});

it("the page says which section took too long, and shows the others", async () => {
  await onServer(
    database.url,
    `CREATE OR REPLACE VIEW hawser.bridge_lead AS ${await viewThatSleeps("hawser.bridge_lead")}`,
  );
  await using client = pageClient({ databaseUrl: database.url });
  const { status, text } = await client.get("/");
  expect(status).toBe(200);
  expect(text).toContain("It could not be read: <bdi>Postgres ended the statement");
  expect(text).toContain("order # is unknown");
});

/** Definition of a view that takes an hour. */
async function viewThatSleeps(view: string): Promise<string> {
  const [row] = await rowsOf(database.url, `SELECT pg_get_viewdef('${view}') AS definition`);
  const definition = (row as { readonly definition: string }).definition.replace(/;\s*$/, "");
  return `SELECT v.* FROM (SELECT pg_sleep(3600) OFFSET 0) AS s, (${definition}) AS v`;
}

interface PlanNode {
  readonly "Node Type": string;
  readonly "Relation Name"?: string;
  readonly "Actual Rows": number;
  readonly Plans?: readonly PlanNode[];
}

function nodesOf(node: PlanNode): PlanNode[] {
  return [node, ...(node.Plans ?? []).flatMap(nodesOf)];
}

/** Statement of the overview, as the page sends it. */
function overviewQuery(): string {
  return deadLetterCausesSql
    .replaceAll("$1", "NULL")
    .replace("$2", String(examinedDeadLetters))
    .replace("$3", String(shownRows))
    .replaceAll("$4", "NULL")
    .replaceAll("$5", "true");
}
