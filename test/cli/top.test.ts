/** `hawser top` where it prints once, and its screen on a terminal that is none. */
import { EventEmitter } from "node:events";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Screen } from "../../src/operating/cli/screen.js";
import { login } from "../installation/support/logins.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer } from "../support/on-server.js";
import { hawser, jsonLines } from "./support/hawser.js";

let database: TestDatabase;
beforeAll(async () => {
  database = await testDatabase();
  await onServer(
    database.url,
    `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts)
     SELECT 'queue', '', E'ord\\x1b[2Jers', 'the-payload', 'handler_failed', 'order ' || n || E' \\u202Ehas no price', 1
       FROM generate_series(1, 3) AS n`,
    "INSERT INTO hawser_peer_data.peers (name, epoch, clean) VALUES ('crashed', 1, false)",
    "UPDATE hawser_data.owners SET epoch = 9007199254740993, owner = 'serve-1' WHERE what = 'serve'",
    "SELECT hawser.enqueue('orders', 'x')",
    // Too young for a finding, as long as the tests last.
    "UPDATE hawser_data.queue SET enqueued_at = now() + interval '1 day'",
  );
});
afterAll(() => database.drop());

describe("hawser top", () => {
  it("prints once what there is, with the verdict, if standard output is no terminal", async () => {
    const { status, stdout, stderr } = await hawser(["top"], { databaseUrl: database.url });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout).toMatch(/^hawser_test_\w+ as \w+ {2}\d{4}-\d\d-\d\dT[\d:]+Z$/m);
    expect(stdout).toMatch(/^VERDICT {2}.*checks done, \d+ s ago$/m);
    expect(stdout).toMatch(/^warning {2}dead-letters: 3 messages/m);
    expect(stdout).toContain("LEADER  serve-1, epoch 9007199254740993: ");
    expect(stdout).toMatch(/^crashed +ended uncleanly +\d+ (s|min) ago +0$/m);
    expect(stdout).toMatch(/^peer +1 +in \d+ h +orders +0$/m);
    expect(stdout).toMatch(/^orders +unserved +1 +in \d+ h +none is known +enqueued$/m);
    expect(stdout).toMatch(/^ord\\u001b\[2Jers +3 +\d+ (s|min) ago +handler_failed +order # \\u202ehas no price$/m);
    expect(stdout).not.toMatch(/[^\P{Cc}\n]|\u202e/u);
    expect(stdout).not.toContain("the-payload");
  });

  it("prints the same with --once", async () => {
    const { status, stdout } = await hawser(["top", "--once", "--interval", "1h"], { databaseUrl: database.url });
    expect(status).toBe(0);
    expect(stdout.match(/^[A-Z]{2,}(?: LETTERS)?/gm)).toEqual([
      ...["VERDICT", "LEADER", "TOPICS", "PEERS", "OUTBOX", "BACKLOG", "STREAMS", "SCHEDULES", "DEAD LETTERS"],
    ]);
  });

  it("sorts lists with --sort, also topics by their rates", async () => {
    await using own = await testDatabase({ nats: false });
    const numbers = (handled: number, failed: number) => [handled, handled, failed, 0, 0, 0, 0, 0];
    const series = {
      all: numbers(0, 0),
      named: { many: numbers(30, 0), few: numbers(15, 0), failing: numbers(0, 15) },
    };
    await onServer(
      own.url,
      "SELECT hawser.enqueue('few', 'x'), hawser.enqueue('failing', 'x') FROM generate_series(1, 2)",
      "SELECT hawser.enqueue('many', 'x') FROM generate_series(1, 3)",
      `INSERT INTO hawser_data.samples (step, slot, sampled_at, covers_ms, series)
       SELECT 15, (extract(epoch FROM t.at)::bigint / 15) % 240, t.at, 15000, '${JSON.stringify({ topic: series })}'
         FROM (SELECT clock_timestamp() - n * interval '15 s' AS at FROM generate_series(0, 7) AS n) AS t`,
    );
    const topics = async (sort: string) => {
      const { stdout } = await hawser(["top", "--json", "--sort", sort], { databaseUrl: own.url });
      const [line] = jsonLines(stdout) as { topics: { value: { topic: string }[] } }[];
      return line!.topics.value.map(({ topic }) => topic);
    };
    expect(await topics("in")).toEqual(["many", "few", "failing"]);
    expect((await topics("failed"))[0]).toBe("failing");
    expect((await topics("waiting"))[0]).toBe("many");
    expect(await topics("oldest")).toEqual(["few", "failing", "many"]);
    expect(await topics("name")).toEqual(["failing", "few", "many"]);
    const { stdout } = await hawser(["top", "--once", "--sort", "out"], { databaseUrl: own.url });
    expect(stdout).toMatch(/^TOPICS \(3\) .* IN\/S +OUT\/S +FAILED\/S\nmany .* 2 +2 +0$/m);
    const refused = await hawser(["top", "--sort", "size"], { databaseUrl: own.url });
    expect(refused).toMatchObject({
      status: 64,
      stderr: expect.stringContaining('--sort "size" is not one of waiting'),
    });
  });

  it("prints one line of JSON with --json, 64-bit integers as texts", async () => {
    const { status, stdout, stderr } = await hawser(["top", "--json"], { databaseUrl: database.url });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const [snapshot, ...others] = jsonLines(stdout);
    expect(others).toEqual([]);
    expect(snapshot).toMatchObject({
      at: expect.stringMatching(/^\d{4}-/),
      verdict: { state: "read", value: { ok: true, findings: expect.any(Array), checks: expect.any(Array) } },
      leader: { state: "read", value: { owner: "serve-1", epoch: "9007199254740993" } },
      peers: { state: "read", value: [{ name: "crashed", running: false }] },
      outbox: { state: "read", value: [{ kind: "nats" }, { kind: "peer", waiting: 1 }] },
      pending: {
        state: "read",
        value: [{ sender: null, listener: null, topic: "orders", count: 1, state: "unserved" }],
      },
      ...{ streams: { value: [] }, schedules: { value: [] } },
      causes: { state: "read", value: { examined: 3, causes: [{ topic: "ord\u001b[2Jers", count: 3 }] } },
    });
  });

  it("shows all sections to a login with hawser_viewer alone, dead letters without their messages", async () => {
    await using viewer = await login(database.url, "IN ROLE hawser_viewer");
    const { status, stdout, stderr } = await hawser(["top"], { databaseUrl: viewer.url });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout).not.toContain("may not read it");
    for (const name of ["LEADER  serve-1", "PEERS ", "DEAD LETTERS (3)"]) expect(stdout).toContain(`\n${name}`);
    const [snapshot] = jsonLines((await hawser(["top", "--json"], { databaseUrl: viewer.url })).stdout);
    expect(snapshot).toMatchObject({
      peers: { state: "read" },
      causes: { state: "read", value: { examined: 3, causes: [{ cause: "", count: 3 }] } },
    });
  });

  it("lists only what has the text of --filter in one of its names", async () => {
    const [all] = jsonLines((await hawser(["top", "--json"], { databaseUrl: database.url })).stdout);
    const [none] = jsonLines(
      (await hawser(["top", "--json", "--filter", "no such name"], { databaseUrl: database.url })).stdout,
    );
    const lengthOf = (snapshot: unknown) => (snapshot as { peers: { value: unknown[] } }).peers.value.length;
    expect(lengthOf(all)).toBeGreaterThan(0);
    expect(lengthOf(none)).toBe(0);
  });

  it("says of a login without any privilege that it may read nothing", async () => {
    await using stranger = await login(database.url);
    const { status, stdout } = await hawser(["top"], { databaseUrl: stranger.url });
    expect(status).toBe(0);
    expect(stdout.match(/This login may not read it: permission denied for schema hawser/g)).toHaveLength(8);
  });

  it("ends with an error if Postgres is away, and without the schema", async () => {
    const away = await hawser(["top"], { databaseUrl: "postgres://nobody:secret@127.0.0.1:1/none" });
    expect(away).toMatchObject({ status: 69, stdout: "" });
    expect(away.stderr).toContain("Start Postgres at this address");
    expect(away.stderr).not.toContain("secret");
    await using empty = await testDatabase();
    await onServer(empty.url, "DROP SCHEMA hawser, hawser_data, hawser_peer_data, hawser_bridge_data CASCADE");
    const { status, stderr } = await hawser(["top", "--json"], { databaseUrl: empty.url });
    expect(status).toBe(78);
    expect(stderr).toContain("[schema_missing]");
  });

  it.each([
    [["--interval", "1ms"], '--interval "1ms" is not a duration from 500ms to 1h'],
    [["--interval", "2"], "write a unit: 2s"],
    [["now"], '"now" is one more'],
  ])("refuses %j", async (args, message) => {
    const { status, stdout, stderr } = await hawser(["top", ...args], { databaseUrl: database.url });
    expect({ status, stdout }).toEqual({ status: 64, stdout: "" });
    expect(stderr).toContain(message);
  });
});

/** Terminal that keeps what is written to it. */
function terminal(isTTY: boolean) {
  const written: string[] = [];
  const modes: boolean[] = [];
  const stdin = Object.assign(new EventEmitter(), {
    isTTY,
    setRawMode: (on: boolean) => modes.push(on),
    pause: () => undefined,
  });
  const stdout = Object.assign(new EventEmitter(), {
    columns: 40,
    rows: 10,
    write: (text: string) => written.push(text),
  });
  const streams = { stdin, stdout } as unknown as ConstructorParameters<typeof Screen>[1];
  return { written, modes, stdin, stdout, streams };
}

describe("the screen", () => {
  it("hides the cursor on a screen of its own, and restores all once", () => {
    const { written, modes, stdin, stdout, streams } = terminal(true);
    const seen: string[] = [];
    const before = process.listenerCount("exit");
    const screen = new Screen({ onKey: (key) => seen.push(key), onResize: () => seen.push("resize") }, streams);
    screen.draw(["one", "two"]);
    stdin.emit("data", Buffer.from("q "));
    stdout.columns = 20;
    stdout.emit("resize");
    expect(screen.size).toEqual({ columns: 20, rows: 10 });
    screen.close();
    screen.close();
    screen.draw(["late"]);
    stdin.emit("data", Buffer.from("x"));
    stdout.emit("resize");
    expect(seen).toEqual(["q", " ", "resize"]);
    expect(modes).toEqual([true, false]);
    expect(written).toEqual([
      "\u001b[?1049h\u001b[?25l\u001b[?7l",
      "\u001b[Hone\u001b[K\r\ntwo\u001b[K\u001b[J",
      "\u001b[?7h\u001b[?25h\u001b[?1049l",
    ]);
    expect(process.listenerCount("exit")).toBe(before);
  });

  it("has no keys if standard input is no terminal, and a size if the terminal tells none", () => {
    const { modes, stdin, stdout, streams } = terminal(false);
    Object.assign(stdout, { columns: 0, rows: undefined });
    const screen = new Screen({ onKey: () => undefined, onResize: () => undefined }, streams);
    expect(screen.hasKeys).toBe(false);
    expect(screen.size).toEqual({ columns: 80, rows: 24 });
    expect(stdin.listenerCount("data")).toBe(0);
    screen.close();
    expect(modes).toEqual([]);
  });
});
