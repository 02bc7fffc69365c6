/** `hawser audit`: what operators have done, and how long that is kept. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { hawser, jsonLines } from "./support/hawser.js";

let database: TestDatabase;
beforeAll(async () => {
  database = await testDatabase({ nats: false });
});
afterAll(() => database?.drop());

const run = (...args: string[]) => hawser(args, { databaseUrl: database.url });

it("hawser audit lists what was done, the newest first, and filters it", async () => {
  expect(await run("audit")).toMatchObject({
    ...{ status: 0, stdout: "" },
    stderr: "Nobody has done anything that is recorded, or nothing that matches.\n",
  });
  await run("topics", "pause", "mails");
  await run("topics", "limit", "pdf", "--running", "3");
  await run("topics", "resume", "mails");
  const { stdout } = await run("audit");
  expect(stdout.split("\n").map((line) => line.replace(/^\S+Z/, "T").trimEnd())).toEqual([
    expect.stringMatching(/^AT +LOGIN +APPLICATION +ACTION +OBJECT +COUNT +DETAILS$/),
    expect.stringMatching(/^T +postgres +hawser +resume +mails$/),
    expect.stringMatching(/^T +postgres +hawser +limit +pdf +running 3$/),
    expect.stringMatching(/^T +postgres +hawser +pause +mails$/),
    "",
  ]);
  const actions = async (...filter: string[]) =>
    jsonLines((await run("audit", "--json", ...filter)).stdout).map(({ action }) => action);
  expect(await actions()).toEqual(["resume", "limit", "pause"]);
  expect(await actions("--topic", "mails", "--limit", "1")).toEqual(["resume"]);
  expect(await actions("--action", "limit", "--since", "1h")).toEqual(["limit"]);
  expect(await actions("--login", "nobody")).toEqual([]);
  const [limit] = jsonLines((await run("audit", "--json", "--action", "limit")).stdout);
  expect(limit).toEqual({
    ...{ id: expect.any(Number), at: expect.stringMatching(/Z$/), login: "postgres", role: "postgres" },
    ...{ application: "hawser", action: "limit", object: "pdf", count: null, details: { running: 3 } },
  });
});

it("hawser audit retention shows and sets the days, without those of dead letters", async () => {
  expect((await run("audit", "retention")).stdout).toMatch(/ older than 90 days\.\n$/);
  expect((await run("audit", "retention", "365")).stdout).toBe(
    "Peers delete records of what operators have done that are older than 365 days.\n",
  );
  expect((await run("audit", "retention", "--json")).stdout).toBe('{"auditRetentionDays":365}\n');
  expect((await run("dead", "retention", "--json")).stdout).toBe('{"deadLetterRetentionDays":30}\n');
});

it.each([
  [["audit", "--action", "polish"], /action/],
  [["audit", "list", "3"], /it takes no "3"/],
  [["audit", "retention", "3", "--topic", "t"], /--topic goes with list/],
  [["audit", "retention", "0"], /0/],
])("hawser %j is refused", async (args, message) => {
  expect(await run(...args)).toMatchObject({ status: 64, stderr: expect.stringMatching(message) });
});
