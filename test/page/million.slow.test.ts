/** The page over 1,000,000 dead letters: it reads a bounded number of rows. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { pageConstants } from "../../generated/ts/settings/page.js";
import { deadLetterCausesSql } from "../../src/store/dead-letter-causes.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { pageClient } from "./support/page-world.js";

const count = 1_000_000;
let database: TestDatabase;

beforeAll(async () => {
  database = await testDatabase();
  await onServer(
    database.url,
    `INSERT INTO hawser.dead_letters (origin, source, topic, payload, error_code, error_message, attempts)
     SELECT 'peer', 's:t:l', 'orders-' || n % 7, convert_to(repeat('x', 200), 'UTF8'), 'handler_failed', 'order ' || n || ' is unknown', 1
       FROM generate_series(1, ${count}) AS n`,
    "ANALYZE hawser.dead_letters",
    "SELECT pg_stat_reset()",
  );
}, 300_000);
afterAll(() => database.drop());

it("opens with a look at the newest dead letters, and lists the first ones", async () => {
  await using client = pageClient({ databaseUrl: database.url });
  // Connects, and starts the examination, which reads the table in the background.
  await client.get("/jobs");
  const begunAt = performance.now();
  const { text } = await client.get("/");
  const overviewMs = performance.now() - begunAt;
  const list = await client.get("/dead?origin=peer&topic=orders-3");
  const listMs = performance.now() - begunAt - overviewMs;
  console.log(`1,000,000 dead letters: overview ${overviewMs.toFixed(0)} ms, filtered list ${listMs.toFixed(0)} ms`);
  expect(text).toContain(`The newest ${pageConstants.examinedDeadLetters} dead letters are examined`);
  expect(text).toContain("order # is unknown");
  expect(list.text).toContain(`More than ${pageConstants.examinedDeadLetters} dead letters match`);
  expect(list.text.match(/href="\/dead\/\d+"/g)).toHaveLength(pageConstants.shownRows);
});

it("reads them by the primary key", async () => {
  const plan = await rowsOf(database.url, `EXPLAIN (ANALYZE, FORMAT JSON) ${overviewQuery()}`);
  const nodes = nodesOf((plan[0]!["QUERY PLAN"] as { readonly Plan: PlanNode }[])[0]!.Plan);
  const scans = nodes.filter((node) => node["Relation Name"] === "dead_letters");
  expect(scans.map((node) => node["Node Type"])).toEqual(["Index Scan"]);
  expect(scans[0]!["Actual Rows"]).toBe(pageConstants.examinedDeadLetters);
});

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
    .replace("$2", String(pageConstants.examinedDeadLetters))
    .replace("$3", String(pageConstants.shownRows));
}
