/**
 * A release, and a later version that goes further: under load it takes over the database, and the program before it comes
 * back.
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { peerProcess, runningPeer } from "../scenarios/support/peer-process.js";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { Version } from "./support/release.js";

vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

const proto = "proto/hawser/queue/v1/later.proto";

/** A function without parameters. */
function rpc(name: string): string {
  const sqlName = name.replaceAll(/(?<=.)[A-Z]/g, "_$&").toLowerCase();
  return `  // Made for a test.
  rpc ${name}(${name}Request) returns (${name}Response) {
    option (hawser.spec.v1.sql_function) = {
      name: "${sqlName}"
      body_file: "schema/functions/${sqlName}.sql"
      security_definer: true
      execute: "hawser_peer"
    };
  }
`;
}

function messages(name: string, results: readonly string[]): string {
  const fields = results.map((result, n) => `  // A result.\n  int64 ${result} = ${n + 1};\n`).join("");
  return `\n// Parameters.\nmessage ${name}Request {}\n\n// Result.\nmessage ${name}Response {\n${fields}}\n`;
}

const cancelRpc = "  // Cancels a message, in the present transaction";
const cancelMessage = "\n// Parameters of cancel.";

/** The version that is released, with two functions more than the checkout. */
let released: Version;
/** Another one, which has a step more. */
let later: Version;

beforeAll(async () => {
  released = new Version();
  released.forgetReleases();
  released.edit(proto, cancelRpc, rpc("GoesAway") + rpc("ChangesShape") + cancelRpc);
  released.edit(
    proto,
    cancelMessage,
    messages("GoesAway", ["one"]) + messages("ChangesShape", ["one"]) + cancelMessage,
  );
  released.write("schema/functions/goes_away.sql", "BEGIN\n  one := 1;\nEND\n");
  released.write("schema/functions/changes_shape.sql", "BEGIN\n  one := 1;\nEND\n");
  await released.generate();
  await released.freeze();

  later = new Version(released);
  later.edit(proto, rpc("GoesAway"), "");
  later.edit(proto, messages("GoesAway", ["one"]), "");
  later.edit(proto, messages("ChangesShape", ["one"]), messages("ChangesShape", ["one", "two"]));
  later.write("schema/functions/changes_shape.sql", "BEGIN\n  one := 1;\n  two := 2;\nEND\n");
  later.edit(
    "proto/hawser/queue/v1/schedules.proto",
    "  // Its name, one for each role.\n  string name = 1;\n  // The role that has made it.",
    "  // Its name, one for each role.\n  string name = 1;\n  // Added.\n  string place = 101;\n  // The role that has made it.",
  );
  later.edit("schema/views/schedule_status.sql", "SELECT s.name,", "SELECT s.name, s.destination AS place,");
  later.edit("schema/functions/id_of_topic.sql", "BEGIN\n", "BEGIN\n  -- Changed.\n");
  later.edit(
    "proto/hawser/peer/v1/catalog.proto",
    "  optional google.protobuf.Timestamp certificate_ends_at = 9;\n",
    "  optional google.protobuf.Timestamp certificate_ends_at = 9;\n  // Added.\n  optional string note = 10;\n",
  );
  later.write(
    "schema/migrations/2-note.next.sql",
    "-- Oldest program: 1.\nALTER TABLE hawser_peer_data.peers ADD COLUMN note text;\n",
  );
  await later.generate();
});
afterAll(() => {
  released[Symbol.dispose]();
  later[Symbol.dispose]();
});

describe("a frozen step", () => {
  const path = "schema/migrations/1-initial-schema.sql";

  it("has tables and no functions, in less than 1,500 lines", () => {
    const text = released.read(path);
    expect(text).toContain("CREATE TABLE hawser_peer_data.stored_messages (");
    expect(text).not.toMatch(/^ *(CREATE (OR REPLACE )?(FUNCTION|VIEW|TRIGGER)|GRANT .* TO hawser_)/m);
    expect(text.split("\n").length).toBeLessThan(1_500);
  });

  it("is not written again by a second freeze", async () => {
    const before = released.read(path);
    await released.freeze();
    expect(released.read(path)).toBe(before);
  });
});

it("the later version drops what the released one had, and nothing else", async () => {
  const script = `const { programSchema } = await import("./src/jobs-and-peers/migrations/index.ts"); console.log(JSON.stringify(programSchema.dropped))`;
  expect(JSON.parse(await later.evaluate(script))).toEqual([
    { step: 1, last: false, sql: "DROP VIEW IF EXISTS hawser.schedule_status;" },
    { step: 1, last: true, sql: "DROP FUNCTION IF EXISTS hawser.goes_away();" },
    { step: 1, last: false, sql: "DROP FUNCTION IF EXISTS hawser.changes_shape();" },
  ]);
  expect(JSON.parse(await released.evaluate(script))).toEqual([]);
});

describe("the number of the oldest program", () => {
  const path = "schema/migrations/2-note.next.sql";
  const column = "ALTER TABLE hawser_peer_data.peers ADD COLUMN note text;\n";

  it.each([
    ["-- Oldest program: 3.\n", "may say the number of a step from 1 to 2"],
    ["-- Oldest program: 0.\n", "may say the number of a step from 1 to 2"],
    ["-- oldest program: 1\n", 'has the line "-- oldest program: 1"'],
    ["-- Oldest program: 1.\n-- Oldest program: 2.\n", 'has the line "-- Oldest program: 2."'],
  ])("is refused in another form, or if it cannot be: %j", async (lines, says) => {
    using wrong = new Version(later);
    wrong.write(path, lines + column);
    await expect(wrong.generate()).rejects.toThrow(says);
  });

  it("is that of the step itself if nothing is said", async () => {
    using other = new Version(later);
    other.write(path, column);
    await other.generate();
    expect(other.read("generated/ts/sql/migrations.ts")).toContain('{ id: 2, name: "note", oldestProgram: 2, sql:');
    expect(later.read("generated/ts/sql/migrations.ts")).toContain('{ id: 2, name: "note", oldestProgram: 1, sql:');
  });

  it("and the list of released functions is written by no hand", async () => {
    using wrong = new Version(later);
    wrong.write("schema/released-functions.txt", `${wrong.read("schema/released-functions.txt")}hawser.mine()\n`);
    await expect(wrong.generate()).rejects.toThrow("only `npm run freeze-migration` writes this file");
  });
});

it("functions that differ from the released ones need a step", async () => {
  using changed = new Version(released);
  const verify = `const { schemaStep } = await import("./scripts/verify/schema.ts"); console.log(JSON.stringify(await schemaStep.run()))`;
  expect(JSON.parse(await changed.evaluate(verify))).toEqual({ kind: "ok" });
  changed.edit("schema/functions/id_of_topic.sql", "BEGIN\n", "BEGIN\n  -- Changed.\n");
  await changed.generate();
  expect(JSON.parse(await changed.evaluate(verify))).toMatchObject({
    kind: "failed",
    details: "The functions, views or grants differ from those that were released with migration 1.",
    remedy: expect.stringContaining("2-….next.sql"),
  });
});

/** Calls that other roles make all the time, each in a new session and in one that stays. */
class Load {
  readonly enqueued: string[] = [];
  readonly errors: unknown[] = [];
  reads = 0;
  readonly #url: string;
  readonly #stop = new AbortController();
  readonly #running: Promise<unknown>;

  constructor(url: string) {
    this.#url = url;
    this.#running = Promise.all([this.#write("new", false), this.#write("kept", true), this.#read()]);
  }

  async end(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #loop(isKept: boolean, work: (client: pg.Client) => Promise<void>): Promise<void> {
    let client: pg.Client | undefined;
    while (!this.#stop.signal.aborted) {
      try {
        if (client === undefined) {
          client = new pg.Client(this.#url);
          client.on("error", (error) => this.errors.push(error));
          await client.connect();
        }
        await work(client);
        if (!isKept) {
          await client.end();
          client = undefined;
        }
      } catch (error) {
        this.errors.push(error);
      }
      await delay(5);
    }
    await client?.end();
  }

  #write(prefix: string, isKept: boolean): Promise<void> {
    let number = 0;
    return this.#loop(isKept, async (client) => {
      const text = `${prefix} ${++number}`;
      await client.query("SELECT hawser.enqueue('orders', $1::text)", [text]);
      this.enqueued.push(text);
    });
  }

  #read(): Promise<void> {
    return this.#loop(true, async (client) => {
      await client.query("SELECT name FROM hawser.schedule_status");
      this.reads++;
    });
  }
}

it("an upgrade under load fails no call, and the program before it goes back to work", async () => {
  await using database = await testDatabase({ migrated: false });
  const { url, name } = database;
  expect(await released.hawser(["init"], url)).toMatchObject({ status: 0 });
  const role = `${name}_writer`;
  await onServer(url, `CREATE ROLE ${role} LOGIN PASSWORD 'test' IN ROLE hawser_peer`);
  const loadUrl = new URL(url);
  [loadUrl.username, loadUrl.password] = [role, "test"];
  try {
    const old = await runningPeer(url, "orders-1", { directory: released.directory });
    const load = new Load(loadUrl.href);
    await old.messages.find(({ text }) => text === "new 20");
    const before = { writes: load.enqueued.length, reads: load.reads };

    const upgraded = await later.hawser(["init", "--json"], url);
    expect(upgraded).toMatchObject({ status: 0 });
    expect(JSON.parse(upgraded.stdout)).toMatchObject({ migrations: [{ id: 2, name: "note" }] });
    const after = { writes: load.enqueued.length, reads: load.reads };
    expect(after.writes).toBeGreaterThan(before.writes);
    expect(after.reads).toBeGreaterThan(before.reads);

    expect(
      await rowsOf(
        url,
        "SELECT id, oldest_program, functions IS NULL AS without FROM hawser_data.migrations ORDER BY id",
      ),
    ).toEqual([
      { id: 1, oldest_program: 1, without: false },
      { id: 2, oldest_program: 1, without: false },
    ]);
    expect(
      await rowsOf(url, "SELECT to_regprocedure('hawser.goes_away()') AS gone, s.* FROM hawser.changes_shape() AS s"),
    ).toEqual([{ gone: null, one: "1", two: "2" }]);
    expect(
      await rowsOf(
        url,
        `SELECT has_function_privilege('${role}', 'hawser.changes_shape()', 'EXECUTE') AS calls,
                has_table_privilege('${role}', 'hawser.schedule_status', 'SELECT') AS reads,
                has_function_privilege('public', 'hawser.changes_shape()', 'EXECUTE') AS anybody`,
      ),
    ).toEqual([{ calls: true, reads: true, anybody: false }]);

    // Programs of both versions side by side.
    const shop = await runningPeer(url, "shop-1", { directory: later.directory });
    expect((await shop.call("sendTo", "orders", "from the later one")).outcome).toMatch(/delivered|stored/);
    await old.messages.find(({ text }) => text === "from the later one");
    expect((await old.finish()).status).toBe(0);

    // Back to the old one.
    const back = await runningPeer(url, "orders-1", { directory: released.directory });
    expect((await back.call("sendTo", "shop", "from the old one")).outcome).toMatch(/delivered|stored/);
    await shop.messages.find(({ text }) => text === "from the old one");
    expect((await shop.call("sendTo", "orders", "to the old one")).outcome).toMatch(/delivered|stored/);
    await back.messages.find(({ text }) => text === "to the old one");
    await load.end();
    expect(load.errors).toEqual([]);
    await eventually("all that was enqueued is handled", () => {
      const handled = new Set([...old.messages.all, ...back.messages.all].map(({ text }) => text));
      return load.enqueued.every((text) => handled.has(text));
    });

    // Its init would put older functions under the later program.
    const state = () => rowsOf(url, "SELECT id, functions FROM hawser_data.migrations ORDER BY id");
    const applied = await state();
    const refused = await released.hawser(["init"], url);
    expect(refused.status).toBe(78);
    expect(refused.stderr).toContain(
      "a newer version has prepared this database: it has migration 2 (note), and this version knows only 1. This version works with it without `hawser init`. Nothing was done",
    );
    expect(await state()).toEqual(applied);
    const examined = await released.hawser(["doctor", "--json"], url);
    expect(examined.stdout).toContain(
      "the schema has migration 2 (note) of a newer version, with which this program works",
    );

    // A step that does not suit it.
    await onServer(url, "UPDATE hawser_data.migrations SET oldest_program = 2 WHERE id = 2");
    const late = peerProcess(url, "late-1", { directory: released.directory });
    await expect(late.call("run")).rejects.toMatchObject({ code: "schema_too_new" });
    await expect(late.call("run")).rejects.toThrow(
      "the database has migration 2 (note), and this version knows only 1; upgrade the program",
    );
    expect(await rowsOf(url, "SELECT name FROM hawser_peer_data.peers WHERE name = 'late-1'")).toEqual([]);
    expect((await back.finish()).status).toBe(0);
    expect((await shop.finish()).status).toBe(0);
  } finally {
    await onServer(url, `DROP OWNED BY ${role}`, `DROP ROLE ${role}`).catch(() => undefined);
  }
});
