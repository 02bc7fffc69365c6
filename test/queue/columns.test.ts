/** Columns of the queue that a copy for all, a dead letter, the row of its retry, and what is kept of a job's end have. */
import pg from "pg";
import { expect, it } from "vitest";
import { testDatabase } from "../support/database.js";
import { TestWorker } from "./support/test-worker.js";

type Row = Readonly<Record<string, unknown>>;

/** Value of a column, as Postgres writes it into JSON, and the rows that have it, too. A new column is to be added here. */
const columns: Readonly<Record<string, readonly [value: unknown, rows: string]>> = {
  topic: ["t", "copy letter retried result"],
  recipient: ["!", "copy letter retried"],
  role: ["pg_monitor", "copy letter retried result"],
  // Its priority; the rest is drawn anew.
  rank: [-(2 ** 46) + 9_000_001, "copy letter retried"],
  id: [9_000_002, "letter retried result"],
  // By its name.
  worker: [null, "letter result"],
  attempts: [1_301, "letter result"],
  // A row that is taken has none of these.
  due_at: [null, ""],
  behind: [null, ""],
  later: [null, ""],
  later_xid: [null, ""],
  // In a header; the place of a dead letter in the order has passed.
  key: ["the-key", "copy letter retried result"],
  // In a header of the dead letter.
  origin: ["shop-1:shop", "copy letter retried"],
  to_all: [true, "copy"],
  enqueued_at: ["2001-02-03T04:05:06.007+00:00", "copy letter result"],
  payload: ["\\x7061796c6f6164", "copy letter retried"],
  headers: [[["own", "header"]], "copy letter retried result"],
  // A retry begins anew.
  failures: [[{ at: "2001-02-03", code: "the-code", attempt: 1, message: "m" }], "letter"],
  is_suspect: [true, ""],
  was_running: [true, ""],
  begun_by: [9_000_003, ""],
  given_back: [1_302, "letter"],
  // The key is free once the message has ended.
  unique_key: ["the-unique-key", ""],
  awaited_as: [9_000_004, "letter retried"],
  // As the time at which the result expires.
  keep_ms: [86_400_017, "letter retried"],
  progress: ['"half"', "letter retried result"],
  copied_upto: ["#a", ""],
  role_id: [3373, "copy letter retried result"],
  role_mark: [null, ""],
  message_id: [null, ""],
  // Of a message that was sent.
  channel_id: [null, ""],
  to_stream: [null, ""],
  domain: [null, ""],
};

it("say of each which other rows have it", async () => {
  const database = await testDatabase({ nats: false });
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  try {
    const one = async (sql: string, ...values: unknown[]): Promise<Row> =>
      (await client.query<{ row: Row }>(`SELECT to_jsonb(r) AS row FROM (${sql}) AS r`, values)).rows[0]!.row;
    await client.query("SET timezone = 'UTC'");
    const named = await client.query<{ name: string }>(
      `SELECT attname AS name FROM pg_attribute
        WHERE attrelid = 'hawser_data.queue'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY 1`,
    );
    expect(Object.keys(columns).sort()).toEqual(named.rows.map(({ name }) => name));
    const given = Object.fromEntries(Object.entries(columns).map(([name, [value]]) => [name, value]));
    const put = (row: Row) =>
      client.query("INSERT INTO hawser_data.queue SELECT * FROM jsonb_populate_record(NULL::hawser_data.queue, $1)", [
        JSON.stringify(row),
      ]);
    const worker = await TestWorker.open(client, { name: "the-worker", group: "reds" });

    const has: Record<string, Row> = {};
    await put(given);
    await worker.take();
    has["copy"] = await one("SELECT * FROM hawser_data.queue WHERE recipient LIKE '%#reds'");
    await client.query("DELETE FROM hawser_data.queue");

    await put({ ...given, to_all: false });
    const [taken] = await worker.take();
    // As a copy has it.
    await client.query("UPDATE hawser_data.queue SET to_all = true");
    const dead = await worker.giveUp(taken!);
    has["letter"] = await one("SELECT * FROM hawser_data.dead_letters WHERE id = $1", dead);
    has["result"] = await one("SELECT * FROM hawser_data.results");
    await client.query("SELECT hawser.retry_queued($1)", [[dead]]);
    has["retried"] = await one("SELECT * FROM hawser_data.queue");

    const priorityOf = (row: Row) => Math.floor(Number(row["rank"]) / 2 ** 46);
    const isIn = (row: Row, column: string): boolean => {
      if (column === "rank") return priorityOf(row) === priorityOf(given);
      const value = column === "worker" ? "the-worker" : given[column];
      if (value === null) return false;
      if (typeof value === "boolean" || column === "recipient" || column === "topic")
        return [row[column], row["source"]].some((each) => String(each).startsWith(String(value)));
      return JSON.stringify(row).includes(JSON.stringify(value).replace(/^["[]|["\]]$/g, ""));
    };
    const found = Object.keys(columns).map((column) => [
      column,
      Object.keys(has)
        .filter((place) => isIn(has[place]!, column))
        .sort()
        .join(" "),
    ]);
    const expected = Object.entries(columns).map(([column, [, rows]]) => [column, rows.split(" ").sort().join(" ")]);
    expect(found).toEqual(expected);
  } finally {
    await client.end();
    await database.drop();
  }
});
