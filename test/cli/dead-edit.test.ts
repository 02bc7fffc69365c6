/** `hawser dead edit`: corrects a payload, or enqueues another message like a dead letter. */
import { chmod, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { hawser, jsonLines } from "./support/hawser.js";

let database: TestDatabase;
let client: pg.Client;
let directory: string;
beforeAll(async () => {
  database = await testDatabase({ nats: false });
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
  directory = await mkdtemp(join(tmpdir(), "dead-edit-"));
});
afterAll(async () => {
  await client?.end();
  await database?.drop();
  await rm(directory, { recursive: true, force: true });
});
beforeEach(async () => {
  await client.query("TRUNCATE hawser_data.queue, hawser_data.dead_letters, hawser_data.original_payloads");
});

const dead = (args: string[], more: Partial<Parameters<typeof hawser>[1]> = {}) =>
  hawser(["dead", ...args], { databaseUrl: database.url, ...more });
/** Dead letter of the queue. @returns its id */
async function letter(payload: string, more = "'queue', ''", headers: unknown = null): Promise<string> {
  const { rows } = await client.query(
    `INSERT INTO hawser_data.dead_letters (topic, payload, headers, error_code, error_message, attempts, job_id, origin, source)
     VALUES ('t', convert_to($1, 'UTF8'), $2, 'handler_failed', 'no', 1, nextval('hawser_data.outbox_id_seq'), ${more}) RETURNING id`,
    [payload, headers && JSON.stringify(headers)],
  );
  return rows[0].id;
}
const payloadOf = async (id: string) =>
  `${(await client.query("SELECT payload FROM hawser_data.dead_letters WHERE id = $1", [id])).rows[0].payload}`;
const queued = async () =>
  (await client.query("SELECT convert_from(payload, 'UTF8') AS payload, key, headers, topic FROM hawser_data.queue"))
    .rows;

it("replaces the payload, and shows the original with who has corrected it", async () => {
  const id = await letter('{"amount": "17"}');
  const result = await dead(["edit", id, "--text", '{"amount": 17}']);
  expect(result).toMatchObject({
    status: 0,
    stdout: `Edited dead letter ${id}. It is not handled until \`hawser dead retry ${id}\`.\n`,
    stderr: "",
  });
  expect(await payloadOf(id)).toBe('{"amount": 17}');
  const [shown] = jsonLines((await dead(["list", id, "--json", "--payload"])).stdout);
  expect(shown).toMatchObject({
    payload: '{"amount": 17}',
    edit: { by: "postgres", edits: 1, original: { payload: '{"amount": "17"}', encoding: "utf8" } },
  });
  const again = await dead(["edit", id, "--text", '{"amount": 17}', "--json"]);
  expect(jsonLines(again.stdout)).toEqual([{ id: Number(id), outcome: "unchanged" }]);
});

it("takes the payload from standard input and from files, and retries it", async () => {
  const id = await letter("x");
  const result = await dead(["edit", id, "--retry"], { input: "from a pipe" });
  expect(result).toMatchObject({ status: 0, stdout: `Edited dead letter ${id}, and retried it.\n` });
  expect(await queued()).toMatchObject([{ payload: "from a pipe", topic: "t" }]);
  const path = join(directory, "payload");
  await writeFile(path, "from a file");
  const next = await letter("x");
  expect((await dead(["edit", next, "--payload-file", path])).status).toBe(0);
  expect(await payloadOf(next)).toBe("from a file");
  expect((await dead(["edit", next, "--text", "b25l", "--base64"])).status).toBe(0);
  expect(await payloadOf(next)).toBe("one");
});

it("asks on a terminal, and starts the editor there, whose file does not stay", async () => {
  const id = await letter("wrong");
  const no = await dead(["edit", id, "--text", "right"], { terminal: true, input: "n\n" });
  expect(no.status).toBe(1);
  expect(no.stderr).toContain("The payload of dead letter");
  expect(await payloadOf(id)).toBe("wrong");
  const editor = join(directory, "editor");
  await writeFile(editor, `#!/bin/sh\nsed -i.bak s/wrong/right/ "$1"; echo >> "$1"\n`);
  await chmod(editor, 0o755);
  const env = { EDITOR: editor, VISUAL: "", TMPDIR: directory };
  const edited = await dead(["edit", id], { terminal: true, input: "y\n", env });
  expect(edited.status).toBe(0);
  expect(await payloadOf(id)).toBe("right");
  expect((await readdir(directory)).filter((name) => name.startsWith("hawser-edit"))).toEqual([]);
});

it("enqueues another message like it, without what made it that one", async () => {
  const headers = [
    ["message-origin", "::shop"],
    ["message-key", "k"],
    ["message-id", "17"],
    ["tenant", "north"],
  ];
  const id = await letter("same", "'queue', ''", headers);
  const result = await dead(["edit", id, "--as-new", "--json"]);
  expect(jsonLines(result.stdout)).toEqual([{ id: Number(id), outcome: "copied", jobId: expect.any(String) }]);
  await dead(["edit", id, "--as-new", "--text", "other"]);
  expect(await queued()).toEqual([
    { payload: "same", key: "k", headers: [["tenant", "north"]], topic: "t" },
    { payload: "other", key: "k", headers: [["tenant", "north"]], topic: "t" },
  ]);
  expect(await payloadOf(id)).toBe("same");
});

it.each([
  ["'queue', ''", ["--text", "{}", "--retry", "--as-new"], /leave out --retry/],
  ["'queue', ''", ["--text", "{}", "--payload-file", "x"], /leave out one of the two/],
  ["'queue', ''", ["--text", "no json"], /is JSON, and the new payload is not/],
  ["'queue', '@b-1'", ["--as-new"], /for a certain listener or group/],
  ["'outbox', 'core'", ["--as-new"], /of the origin outbox/],
  ["'outbox', 'core'", ["--text", "{}"], /only those of the queue and of subscriptions can be edited/],
  ["'queue', ''", ["--payload-file", "/does/not/exist"], /--payload-file/],
  ["'queue', ''", ["--text", "{}", "--topic", "t"], /--topic goes with the other actions/],
] as const)("of the origin %s, with %j, is refused", async (origin, args, message) => {
  const id = await letter('{"a": 1}', origin);
  expect(await dead(["edit", id, ...args])).toMatchObject({ status: 64, stderr: expect.stringMatching(message) });
  expect(await queued()).toEqual([]);
});

it("of one that is gone, says so", async () => {
  expect(await dead(["edit", "999", "--text", "x"])).toMatchObject({
    ...{ status: 64, stderr: expect.stringMatching(/there is no dead letter 999/) },
  });
  expect(await dead(["list", "--text", "x"])).toMatchObject({ status: 64, stderr: expect.stringMatching(/with edit/) });
});
