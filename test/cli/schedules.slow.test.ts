import pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { schedulerFunctions } from "../../generated/ts/rows/queue.js";
import { runDueSchedules } from "../../src/jobs-and-peers/queue/schedules/schedules.js";
import { doctor } from "../../src/operating/doctor/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { hawser } from "./support/hawser.js";

let database: TestDatabase;
let client: pg.Client;
beforeAll(async () => {
  database = await testDatabase({ nats: false });
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
});
afterEach(() => client.query("DELETE FROM hawser_data.schedules"));
afterAll(async () => {
  await client?.end();
  await database?.drop();
});

const schedules = (...args: string[]) => hawser(["schedules", ...args], { databaseUrl: database.url });

describe("hawser schedules", () => {
  it("says that there are none", async () => {
    expect(await schedules()).toMatchObject({ status: 0, stdout: "", stderr: "There are no schedules.\n" });
    expect(await schedules("--json")).toMatchObject({ status: 0, stdout: "" });
  });

  it("lists what each does, when it ran and will run, and what is wrong, which doctor reports, too", async () => {
    await client.query("SELECT hawser.schedule('nightly', '0 3 1 1 *', 'reports', 'x', 'Europe/Berlin')");
    await client.query("SELECT hawser.schedule('wrong', '0 61 * * *', 'reports', 'x')");
    const before = await schedules("list");
    expect(before.stdout).toMatch(/nightly .* never {2}soon/);
    const query = async ({ text, values }: { text: string; values: unknown[] }) => await client.query(text, values);
    // No schedule takes any time.
    await runDueSchedules(
      schedulerFunctions({ query }),
      () => false,
      () => 0,
    );
    const { status, stdout } = await schedules();
    expect(status).toBe(0);
    expect(stdout.split("\n")[0]).toMatch(/^NAME +ROLE +CRON +MISSED +FOR +PRIORITY +LAST +NEXT +PROBLEM$/);
    expect(stdout).toMatch(
      /nightly +postgres +0 3 1 1 \* +Europe\/Berlin +one +peer +reports +never +\d{4}-01-01T02:00:00.000Z/,
    );
    expect(stdout).toMatch(/wrong .* never +never +the cron expression "0 61/);
    const lines = (await schedules("--json")).stdout.trim().split("\n");
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { name: "wrong", nextAt: null, problem: expect.stringContaining("61") },
      { name: "nightly", nextAt: expect.stringContaining("-01-01T02:00:00.000Z"), lastAt: null, problem: null },
    ]);
    const found = async () =>
      (await doctor({ databaseUrl: database.url, secretsDirectories: [] })).findings.filter(
        ({ check }) => check === "schedules",
      );
    expect(await found()).toMatchObject([
      {
        severity: "warning",
        what: expect.stringContaining('"wrong" of the role "postgres" does not run'),
        remedy: expect.stringContaining("hawser.schedule"),
      },
    ]);
    await client.query("UPDATE hawser_data.schedules SET next_at = now() - interval '10 min' WHERE name = 'nightly'");
    expect((await found())[0]).toMatchObject({ severity: "error", what: expect.stringContaining('"nightly"') });
  });

  it("runs one now, whose next occurrence stays, and says why one is not run", async () => {
    await client.query("SELECT hawser.schedule('nightly', '0 3 1 1 *', 'reports', 'x')");
    expect((await schedules("run", "nightly")).stderr).toContain("was not run: it is due");
    await client.query(
      "UPDATE hawser_data.schedules SET since = since - interval '1 min', next_at = '2100-01-01 00:00:00Z'",
    );
    const { status, stdout } = await schedules("run", "nightly", "--json");
    expect(status).toBe(0);
    const { id, ...line } = JSON.parse(stdout);
    expect(line).toEqual({ name: "nightly", outcome: "enqueued" });
    const { rows } = await client.query("SELECT topic FROM hawser_data.queue WHERE id = $1", [id]);
    expect(rows).toEqual([{ topic: "reports" }]);
    expect((await schedules()).stdout).toContain("2100-01-01T00:00:00.000Z");
    expect((await schedules("run", "none")).stderr).toContain('has a schedule "none"');
    expect((await schedules("run")).stderr).toContain("name the schedule");
  });

  it("removes one, and says where there is none", async () => {
    for (const name of ["nightly", "wrong"]) {
      await client.query("SELECT hawser.schedule($1, '0 3 1 1 *', 'reports', 'x')", [name]);
    }
    expect(await schedules("remove", "wrong")).toMatchObject({ status: 0, stdout: 'Removed the schedule "wrong".\n' });
    expect(await schedules("remove", "nightly", "--json")).toMatchObject({
      status: 0,
      stdout: '{"name":"nightly","outcome":"removed"}\n',
    });
    const missing = await schedules("remove", "wrong");
    expect(missing.status).toBe(64);
    expect(missing.stderr).toContain('has a schedule "wrong"');
  });

  it.each([
    [["remove"], "hawser schedules remove NAME"],
    [["remov", "a"], "remove"],
    [["list", "a"], "takes no name"],
  ])("refuses %j", async (args, part) => {
    const { status, stderr } = await schedules(...args);
    expect(status).toBe(64);
    expect(stderr).toContain(part);
  });
});
