import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type PeerWorld, peerWorld } from "../peer/support/world.js";
import { eventually } from "../support/eventually.js";
import { hawser, jsonLines as lines } from "./support/hawser.js";

describe("hawser dead", () => {
  let w: PeerWorld;
  let fails = true;

  beforeAll(async () => {
    w = await peerWorld({ keepsConnections: true });
    await w.started("a-1");
    await w.started("b-1", { defaults: { retry: { attempts: 1 } } }, () => {
      if (fails) throw new Error("not today");
    });
  });
  afterAll(() => w[Symbol.asyncDispose]());
  beforeEach(async () => {
    fails = true;
    await w.query("DELETE FROM hawser_data.dead_letters");
  });

  const dead = (...args: string[]) => hawser(["dead", ...args], { databaseUrl: w.url });
  /** The command on a terminal, where somebody types this. */
  const asked = (input: string, ...args: string[]) =>
    hawser(["dead", ...args], { databaseUrl: w.url, input, terminal: true });

  /** Lets messages with these texts die; resolves with their ids. */
  async function die(...texts: (string | Uint8Array)[]): Promise<number[]> {
    const sender = await w.started(`sender-${(senders += 1)}`);
    for (const text of texts) await sender.send("b", text, { headers: { trace: "7" } });
    const select = "SELECT id FROM hawser_data.dead_letters WHERE starts_with(message_id, $1) ORDER BY id";
    const rows = () => w.query<{ id: number }>(select, [`sender-${senders}:sender:b-1/`]);
    await eventually("they are dead", async () => (await rows()).length === texts.length);
    return (await rows()).map(({ id }) => id);
  }
  const queued = async () => (await w.query("SELECT FROM hawser_data.queue")).length;
  let senders = 0;

  it("lists them as a table, the newest first, and as JSON with all that they were", async () => {
    const [one, two] = await die("first", Buffer.from([0, 255]));
    const table = await dead("list");
    expect(table).toMatchObject({ status: 0, stderr: "" });
    const [head, , first, ...rest] = table.stdout.trimEnd().split("\n");
    expect(head).toMatch(/^ *ID {2}GIVEN UP +TOPIC +SOURCE +LISTENER +WORKER +ATTEMPTS +BYTES +ERROR$/);
    expect(first).toMatch(
      new RegExp(
        `^ *${one} {2}20\\S+Z +b +sender-${senders}:sender:b-1/\\d+/1 +b-1 +b-1 +1 +5 +handler_failed: Error: not today$`,
      ),
    );
    expect(rest).toEqual([]);

    const json = await dead("list", "--json");
    expect(lines(json.stdout).map(({ id }) => id)).toEqual([two, one]);
    expect(lines(json.stdout)[0]).not.toHaveProperty("payload");
    const whole = await dead("list", `${one}`, `${two}`, "--json", "--payload");
    expect(lines(whole.stdout)).toMatchObject([
      { id: two, payload: "AP8=", encoding: "base64" },
      { id: one, payload: "first", encoding: "utf8", headers: expect.arrayContaining([["trace", "7"]]), topic: "b" },
    ]);
  });

  it("says how often stops have cut handlers off, if one was", async () => {
    const [one] = await die("1", "2");
    await w.query("UPDATE hawser_data.dead_letters SET given_back = 3 WHERE id = $1", [one]);
    const [head, , first] = (await dead("list")).stdout.split("\n");
    expect(head).toMatch(/ATTEMPTS +GIVEN BACK +BYTES/);
    expect(first).toMatch(/ 1 +3 +1 +handler_failed/);
    expect(lines((await dead("list", "--json")).stdout)).toMatchObject([{ givenBack: 0 }, { givenBack: 3 }]);
  });

  it("lists those that pass the filters", async () => {
    const [one, two, three] = await die("1", "2", "3");
    await w.query("UPDATE hawser_data.dead_letters SET created_at = now() - interval '2 days' WHERE id = $1", [one]);
    await w.query("UPDATE hawser_data.dead_letters SET error_code = 'unsubscribed' WHERE id = $1", [two]);
    const ids = async (...args: string[]) => lines((await dead("list", "--json", ...args)).stdout).map(({ id }) => id);
    expect(await ids("--older-than", "1d")).toEqual([one]);
    expect(await ids("--since", "1d")).toEqual([three, two]);
    expect(await ids("--since", "1999-01-01", "--limit", "2")).toEqual([three, two]);
    expect(await ids("--code", "unsubscribed")).toEqual([two]);
    expect(await ids("--topic", "b", "--source", "@b-1")).toEqual([three, two, one]);
    expect(await ids("--topic", "elsewhere")).toEqual([]);
    expect(await ids("--origin", "subscription")).toEqual([]);
    expect(await dead("list", "--topic", "elsewhere")).toMatchObject({
      status: 0,
      stdout: "",
      stderr: "There are no dead letters, or none that match.\n",
    });
  });

  it("shows the newest hundred to people, and says that there are more", async () => {
    await w.query(
      "INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts) SELECT 'queue', '', 't', 'x', 'c', repeat('m', 200), 1 FROM generate_series(1, 105)",
    );
    const { stdout, stderr } = await dead("list");
    expect(stdout.trimEnd().split("\n")).toHaveLength(101);
    const [{ id } = { id: 0 }] = await w.query<{ id: number }>("SELECT max(id) AS id FROM hawser_data.dead_letters");
    expect(stdout.split("\n")[1]).toMatch(new RegExp(`^ *${id} `));
    expect(stderr).toBe("Only the first 100 are shown; --limit shows more.\n");
    expect((await dead("list", "--limit", "103")).stdout.trimEnd().split("\n")).toHaveLength(104);
    expect(lines((await dead("list", "--json")).stdout)).toHaveLength(105);
  });

  it("retries those that are named: their listener has them again", async () => {
    const [one, two, three] = await die("1", "2", "3");
    fails = false;
    const result = await dead("retry", `${three}`, `${one}`);
    expect(result).toEqual({
      status: 0,
      signal: null,
      stdout: "Enqueued 2 dead letters again.\n",
      stderr: "",
    });
    await eventually("they are handled", async () => (await queued()) === 0);
    expect(await w.query("SELECT id FROM hawser_data.dead_letters")).toEqual([{ id: two }]);
    const json = await dead("retry", "--source", "@b-1", "--json");
    expect(lines(json.stdout)).toEqual([{ id: two, outcome: "enqueued" }]);
    await eventually("it is handled", async () => (await queued()) === 0);
  });

  it("retries and discards all only when told so", async () => {
    await die("1", "2");
    for (const action of ["retry", "discard"]) {
      for (const args of [[], ["--limit", "1"]]) {
        const { status, stderr } = await dead(action, ...args);
        expect(status).toBe(64);
        expect(stderr).toContain(`\`hawser dead ${action}\`: name ids or filters, or --all for every dead letter.`);
      }
      const both = await dead(action, "--all", "--topic", "b");
      expect(both.status).toBe(64);
      expect(both.stderr).toContain("--all means every dead letter");
    }
    expect(await w.query("SELECT FROM hawser_data.dead_letters")).toHaveLength(2);
    expect((await dead("discard", "--all", "--limit", "1")).stdout).toBe("Discarded 1 dead letter.\n");
    expect((await dead("discard", "--all", "--json")).stdout).toMatch(/^\{"id":\d+,"outcome":"discarded"\}\n$/);
    expect(await w.query("SELECT FROM hawser_data.dead_letters")).toHaveLength(0);
    expect((await dead("retry", "--all")).stdout).toBe("Retried no dead letter.\n");
  });

  it("asks on a terminal before it changes what nobody has named, and says how many match", async () => {
    const left = async () => (await w.query("SELECT FROM hawser_data.dead_letters")).length;
    await die("1", "2", "3");
    for (const no of ["\n", "", "no\n", "yesterday\n"]) {
      const refused = await asked(no, "retry", "--all");
      expect(refused).toMatchObject({ status: 1, stdout: "" });
      expect(refused.stderr).toBe(
        "3 dead letters will be handled again, which cannot be undone. Retry them? [y/N] Nothing was changed.\n",
      );
    }
    const discard = await asked("n\n", "discard", "--topic", "b", "--limit", "2");
    expect(discard.stderr).toContain(
      "2 dead letters will be deleted, with payload, which cannot be undone. Discard them?",
    );
    expect(await left()).toBe(3);

    expect(await asked("y\n", "discard", "--topic", "b", "--limit", "1")).toMatchObject({
      status: 0,
      stdout: "Discarded 1 dead letter.\n",
    });
    fails = false;
    const nothing = await asked("", "retry", "--topic", "elsewhere");
    expect(nothing).toMatchObject({ status: 0, stdout: "Retried no dead letter.\n", stderr: "" });
    const [{ id } = { id: 0 }] = await w.query<{ id: number }>("SELECT min(id) AS id FROM hawser_data.dead_letters");
    expect(await asked("", "discard", `${id}`)).toMatchObject({ status: 0, stderr: "" });
    expect(await asked("", "retry", "--all", "--yes")).toMatchObject({ status: 0, stderr: "" });
    expect(await left()).toBe(0);
  });

  it("says which are not there, having done the others, and fails", async () => {
    const [one] = await die("1");
    const result = await dead("discard", `${one}`, "999999", "--json");
    expect(result.status).toBe(64);
    expect(lines(result.stdout)).toEqual([
      { id: one, outcome: "discarded" },
      { id: 999_999, outcome: "missing" },
    ]);
    expect(result.stderr).toContain("there is no dead letter 999999");
  });

  it.each([
    [["lst"], 'cannot "lst". Did you mean list? It can list, retry, discard, edit, retention'],
    [[], "`hawser dead` needs ACTION"],
    [["retry", "x7"], '"x7" is not the id of a dead letter'],
    [["retry", "0"], '"0" is not the id of a dead letter'],
    [["list", "--older-than", "yesterday"], '--older-than "yesterday" is not a moment'],
    [["list", "--since", "01/02/2030"], '--since "01/02/2030" is not a moment'],
    [["list", "--limit", "-1"], "--limit"],
    [["list", "--origin", "mars"], "origin"],
    [["list", "--all"], "list shows all by default"],
    [["list", "--yes"], "--yes goes with retry and discard"],
    [["list", "--payload"], "--payload goes with list --json"],
    [["discard", "1", "--payload", "--json"], "--payload goes with list --json"],
  ])("refuses %j", async (args, message) => {
    const { status, stdout, stderr } = await dead(...args);
    expect({ status, stdout }).toEqual({ status: 64, stdout: "" });
    expect(stderr).toContain(message);
  });

  it("shows the retention of the database and sets it, in whole days", async () => {
    const table = "SELECT dead_letter_retention_days AS days FROM hawser_peer_data.database_settings";
    expect(lines((await dead("retention", "--json")).stdout)).toEqual([{ deadLetterRetentionDays: 30 }]);
    expect((await dead("retention", "7")).stdout).toBe("Peers delete dead letters that are older than 7 days.\n");
    expect(lines((await dead("retention", "36500", "--json")).stdout)).toEqual([{ deadLetterRetentionDays: 36_500 }]);
    expect(await w.query(table)).toEqual([{ days: 36_500 }]);
    for (const days of ["0", "36501", "7d"]) {
      const { status, stderr } = await dead("retention", days);
      expect([status, stderr]).toEqual([
        64,
        expect.stringContaining(`DAYS "${days}" is not a whole number from 1 to 36500`),
      ]);
    }
    expect(await w.query(table)).toEqual([{ days: 36_500 }]);
  });
});
