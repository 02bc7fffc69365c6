/** Schedules that do not run, as the metrics and `hawser doctor` find them. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { stuckSchedules, withCommandDatabase } from "../../src/operating/operate/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer } from "../support/on-server.js";

let database: TestDatabase;
beforeAll(async () => {
  database = await testDatabase({ nats: false });
});
afterAll(() => database.drop());

it("are those that are late or have a problem, at most as many as asked for", async () => {
  const make = (name: string) => `SELECT hawser.schedule('${name}', '0 3 * * *', 'reports', 'x')`;
  await onServer(database.url, ...["late", "odd", "waits", "just-due"].map(make));
  const change = (name: string, to: string) => `UPDATE hawser_data.schedules SET ${to} WHERE name = '${name}'`;
  await onServer(
    database.url,
    change("late", "next_at = now() - interval '20 seconds'"),
    change("odd", "next_at = now() + interval '1 hour', problem = 'the time zone is not known'"),
    change("waits", "next_at = now() + interval '1 hour'"),
    change("just-due", "next_at = now() - interval '1 second'"),
  );
  const found = (limit: number) =>
    withCommandDatabase(database.url, (one) =>
      stuckSchedules((text, values) => one.query("look for schedules", { text, values }), limit),
    );
  const stuck = await found(10);
  expect(stuck).toMatchObject([
    { name: "late", problem: null },
    { name: "odd", problem: "the time zone is not known", lateSeconds: null },
  ]);
  expect(stuck[0]!.lateSeconds).toBeGreaterThanOrEqual(20);
  expect(await found(1)).toHaveLength(1);
});
