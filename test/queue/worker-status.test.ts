/** `hawser.worker_status`: who takes the jobs of a topic, and what each worker says of its handlers. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";

let database: TestDatabase;
beforeAll(async () => {
  database = await testDatabase();
});
afterAll(() => database.drop());

const status = async (given: string) =>
  (await rowsOf(
    database.url,
    `SELECT name, topic, is_running, is_full, handlers::integer, oldest_ms::integer, handled::float8, failed::integer FROM hawser.worker_status(${given})`,
  )) as Record<string, unknown>[];

it("lists the workers of a topic or a name with what they say, whatever JSON that is", async () => {
  await onServer(
    database.url,
    `INSERT INTO hawser_data.workers (name, topics, lease_ms, concurrency, beat_at, gone_at, running) VALUES
       ('busy', '{mails,pdfs}', 15000, 1, clock_timestamp(), NULL,
        '{"full": false, "oldest_ms": 9000, "topics": {"mails": {"running": 2, "oldest_ms": 700, "full": true}}, "totals": {"mails": [40, 3]}}'),
       ('liar', '{mails}', 15000, 1, clock_timestamp(), NULL,
        '{"full": "yes", "topics": {"mails": {"running": "many", "oldest_ms": -5}}, "totals": {"mails": [1e300, null]}}'),
       ('odd', '{mails}', 15000, 1, clock_timestamp(), NULL, '[1]'),
       ('silent', '{mails}', 15000, 1, clock_timestamp() - interval '1 min', NULL, NULL),
       ('gone', '{mails}', 15000, 1, clock_timestamp(), clock_timestamp(), NULL)`,
  );
  const unknown = { handlers: null, oldest_ms: null, handled: null, failed: null };
  const of = (name: string, topic: string, more: object) => ({
    ...{ name, topic, is_running: true, is_full: false, ...unknown },
    ...more,
  });
  const busy = of("busy", "mails", { is_full: true, handlers: 2, oldest_ms: 700, handled: 40, failed: 3 });
  expect(await status("p_topic => 'mails'")).toEqual([
    busy,
    { ...of("liar", "mails", { oldest_ms: 0 }), handled: 1e12 },
    of("odd", "mails", {}),
    of("silent", "mails", { is_running: false }),
  ]);
  expect(await status("p_name => 'busy'")).toEqual([busy, of("busy", "pdfs", {})]);
  expect(await status("p_topic => 'pdfs', p_name => 'odd'")).toEqual([]);
  expect(await status("")).toHaveLength(5);
});
