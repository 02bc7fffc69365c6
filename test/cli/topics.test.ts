/** `hawser topics`: pauses. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { hawser } from "./support/hawser.js";

let database: TestDatabase;
beforeAll(async () => {
  database = await testDatabase({ nats: false });
});
afterAll(() => database?.drop());

const topics = (...args: string[]) => hawser(["topics", ...args], { databaseUrl: database.url });

it("hawser topics pauses and resumes a topic, and says since when and by whom it is paused", async () => {
  expect(await topics()).toMatchObject({
    status: 0,
    stdout: "",
    stderr: "No topic has a message, a listener or a setting.\n",
  });
  expect(await topics("pause", "mails")).toMatchObject({
    status: 0,
    stdout: 'Paused the topic "mails": messages that are being handled end, and no other one begins.\n',
  });
  const since = /The topic "mails" is paused since \d{4}-\d\d-\d\dT\S+Z, by postgres\.\n/;
  expect((await topics("pause", "mails")).stdout).toMatch(since);
  const paused = { topic: "mails", pausedAt: expect.stringMatching(/^\d{4}-/), pausedBy: "postgres" };
  expect(JSON.parse((await topics("pause", "mails", "--json")).stdout)).toEqual({ ...paused, outcome: "unchanged" });
  expect(JSON.parse((await topics("--json")).stdout)).toMatchObject({
    ...paused,
    state: "paused",
    listeners: [],
    waiting: 0,
  });
  expect((await topics("list")).stdout).toMatch(/^TOPIC .*PAUSED SINCE +BY.*\nmails +paused +0 +\d{4}-\S+Z +postgres/);
  expect((await topics("resume", "mails")).stdout).toBe('Resumed the topic "mails".\n');
  expect((await topics("resume", "mails")).stdout).toBe('The topic "mails" is not paused.\n');
  expect((await topics("--json")).stdout).toBe("");
});

it("hawser topics sets and ends the limits of a topic, and shows them", async () => {
  const limits = [
    "--rate",
    "100/s",
    "--burst",
    "20",
    "--running",
    "8",
    "--running-per-key",
    "1",
    "--key-header",
    "Tenant",
  ];
  expect(await topics("limit", "mails", ...limits)).toMatchObject({
    status: 0,
    stdout: 'Limited the topic "mails". `hawser topics` shows its limits.\n',
  });
  const shown = { rate: "100/s", burst: 20, running: 8, runningPerKey: 1, keyHeader: "tenant" };
  expect(JSON.parse((await topics("--json")).stdout)).toMatchObject({ topic: "mails", limits: shown });
  expect((await topics()).stdout).toContain("100/s, burst 20, 8 running, 1 per tenant");
  expect((await topics("limit", "mails", "--running", "2")).status).toBe(0);
  expect(JSON.parse((await topics("--json")).stdout).limits).toEqual({ running: 2 });
  expect((await topics("limit", "mails", "--none")).stdout).toBe('The topic "mails" has no limits.\n');
  expect((await topics("--json")).stdout).toBe("");
});

it("hawser topics has the results of a topic kept, and shows for how long", async () => {
  expect((await topics("keep", "mails", "1h")).stdout).toBe(
    'Results of the topic "mails" are kept, for `hawser jobs show`.\n',
  );
  expect(JSON.parse((await topics("--json")).stdout)).toMatchObject({
    topic: "mails",
    keepMs: 3_600_000,
    limits: null,
  });
  expect((await topics()).stdout).toMatch(/RESULTS KEPT.*\nmails .* 60 min/);
  const ended = { topic: "mails", outcome: "unkept", keepMs: null };
  expect(JSON.parse((await topics("keep", "mails", "--none", "--json")).stdout)).toEqual(ended);
  expect((await topics("--json")).stdout).toBe("");
});

it("hawser topics refuses what it cannot do", async () => {
  for (const [args, why] of [
    [["pause"], "`hawser topics pause`: name the topic"],
    [["list", "mails"], 'it lists all topics, and takes none: "mails"'],
    [["pause", "a:b"], "must not contain ':' or control characters"],
    [["stop", "mails"], 'cannot "stop"'],
    [["limit", "mails"], "give the limits, or --none alone to end them"],
    [["limit", "mails", "--none", "--running", "1"], "give the limits, or --none alone to end them"],
    [["limit", "mails", "--rate", "100"], 'the argument rate is "100"'],
    [["pause", "mails", "--running", "1"], "--running goes with limit"],
    [["keep", "mails", "1h", "--running", "1"], "--running goes with limit"],
    [["keep", "mails"], "give a time such as 1h, or --none to keep no results"],
    [["keep", "mails", "1h", "--none"], "give a time such as 1h, or --none to keep no results"],
    [["keep", "mails", "8d"], 'TIME "8d" is not a duration from 1s to 7d'],
    [["pause", "mails", "1h"], 'only keep takes a time: "1h"'],
  ] as const)
    expect(await topics(...args)).toMatchObject({ status: 64, stderr: expect.stringContaining(why) });
});
