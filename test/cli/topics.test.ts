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
  expect(await topics()).toMatchObject({ status: 0, stdout: "", stderr: "The directory has no listeners.\n" });
  expect(await topics("pause", "mails")).toMatchObject({
    status: 0,
    stdout: 'Paused the topic "mails": messages that are being handled end, and no other one begins.\n',
  });
  const since = /The topic "mails" is paused since \d{4}-\d\d-\d\dT\S+Z, by postgres\.\n/;
  expect((await topics("pause", "mails")).stdout).toMatch(since);
  const paused = { topic: "mails", pausedAt: expect.stringMatching(/^\d{4}-/), pausedBy: "postgres" };
  expect(JSON.parse((await topics("pause", "mails", "--json")).stdout)).toEqual({ ...paused, outcome: "unchanged" });
  expect(JSON.parse((await topics("--json")).stdout)).toMatchObject({ ...paused, name: "", running: false });
  expect((await topics("list")).stdout).toMatch(/^TOPIC .*PAUSED SINCE +BY.*\nmails .* none +\d{4}-\S+Z +postgres/);
  expect((await topics("resume", "mails")).stdout).toBe('Resumed the topic "mails".\n');
  expect((await topics("resume", "mails")).stdout).toBe('The topic "mails" is not paused.\n');
  expect((await topics("--json")).stdout).toBe("");
});

it("hawser topics refuses what it cannot do", async () => {
  for (const [args, why] of [
    [["pause"], "`hawser topics pause`: name the topic"],
    [["list", "mails"], 'it lists all topics, and takes none: "mails"'],
    [["pause", "a:b"], "must not contain ':' or control characters"],
    [["stop", "mails"], 'cannot "stop"'],
  ] as const)
    expect(await topics(...args)).toMatchObject({ status: 64, stderr: expect.stringContaining(why) });
});
