import { existsSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type PeerWorld, peerWorld } from "../peer/support/world.js";
import { eventually } from "../support/eventually.js";
import { temporaryDirectory } from "../support/temporary.js";
import { hawser, isOnPath, jsonLines, startHawser, startListening } from "./support/hawser.js";
import { startPipeline, startShell } from "./support/pipeline.js";

const defaultName = `listen-${hostname()}-orders`;
const hasJq = isOnPath("jq");

describe("hawser listen", () => {
  let world: PeerWorld;
  const options = () => ({ databaseUrl: world.url });

  beforeEach(async () => {
    world = await peerWorld();
  });
  afterEach(() => world[Symbol.asyncDispose]());

  it("prints each message as one line of JSON with everything that is known of it", async () => {
    const listening = await startListening(["orders", "--json", "--count", "3", "--subscribe", "news"], options());
    const shop = await world.started("shop-1");
    await shop.sendTo("orders", '20 m of "rope"\n', {
      headers: [
        ["trace", "1"],
        ["trace", "2"],
      ],
    });
    await shop.sendTo("orders", new Uint8Array([0xff, 0xfe]));
    await shop.sendTo("news", "the harbour is open", { delivery: "at-most-once" });
    const { status, stdout } = await listening.ended;
    expect(status).toBe(0);
    const known = {
      from: "shop",
      sender: "shop-1",
      attempt: 1,
      delivery: "at-least-once",
      headers: [],
      encoding: "utf8",
    };
    expect(jsonLines(stdout)).toEqual([
      {
        ...known,
        to: "orders",
        payload: '20 m of "rope"\n',
        headers: [
          ["trace", "1"],
          ["trace", "2"],
        ],
      },
      { ...known, to: "orders", payload: "//4=", encoding: "base64" },
      { ...known, to: "news", payload: "the harbour is open", delivery: "at-most-once" },
    ]);
  });

  it("prints lines for people without characters that a terminal would obey", async () => {
    const listening = await startListening(["orders", "--count", "3"], options());
    const shop = await world.started("shop-1");
    await shop.sendTo("orders", "ahoj, světe 🌊");
    await shop.sendTo("orders", "two\nlines \u001b[31mred\u202e");
    await shop.sendTo("orders", new Uint8Array([0xff, 0xfe]));
    expect((await listening.ended).stdout).toBe(
      "orders shop-1 ahoj, světe 🌊\norders shop-1 two\\nlines \\u001b[31mred\\u202e\norders shop-1 base64 //4=\n",
    );
  });

  it.each([
    ["--base64", "aGk=", "base64"],
    ["--text", "hi", "utf8"],
  ])("with %s prints every payload so", async (flag, payload, encoding) => {
    const listening = await startListening(["orders", "--json", "--count", "1", flag], options());
    await (await world.started("shop-1")).sendTo("orders", "hi");
    expect(jsonLines((await listening.ended).stdout)).toMatchObject([{ payload, encoding }]);
  });

  it("finds what was stored for its name while it was away, in order, and takes no more than it was asked to", async () => {
    const first = await startListening(["orders", "--count", "1", "--json"], options());
    const shop = await world.started("shop-1");
    await shop.sendTo("orders", "0");
    await first.ended;
    for (let sent = 1; sent <= 5; sent++) {
      expect(await shop.sendTo("orders", String(sent))).toEqual({ outcome: "stored", peer: defaultName });
    }
    const second = await hawser(["listen", "orders", "--count", "2", "--json", "--quiet"], options());
    expect(jsonLines(second.stdout).map(({ payload }) => payload)).toEqual(["1", "2"]);
    expect(second.stderr).toBe("");
    await eventually("the others wait", async () => (await world.storedMessages()) === 3);
    const third = await hawser(["listen", "orders", "--count", "3", "--json"], options());
    expect(jsonLines(third.stdout).map(({ payload }) => payload)).toEqual(["3", "4", "5"]);
  });

  it("with --durable is stored for by senders that never met it", async () => {
    const listening = await startListening(["orders", "--name", "audit-1", "--durable"], options());
    listening.child.kill("SIGTERM");
    expect(await listening.ended).toMatchObject({ status: 0 });
    const sent = await hawser(["send", "orders", "for the record"], options());
    expect(sent).toMatchObject({ status: 0, stdout: "stored for audit-1\n" });
    const { stdout } = await hawser(["listen", "orders", "--name", "audit-1", "--count", "1", "--json"], options());
    expect(jsonLines(stdout)).toMatchObject([{ payload: "for the record" }]);
  });

  it("ends in good order at its --timeout where no --count was asked for", async () => {
    expect(await hawser(["listen", "orders", "--timeout", "1"], options())).toMatchObject({ status: 0, stdout: "" });
  });

  it("fails when fewer messages than --count came within --timeout", async () => {
    const { status, stderr } = await hawser(["listen", "orders", "--count", "2", "--timeout", "1"], options());
    expect(status).toBe(75);
    expect(stderr).toContain("no message of 2 came within 1 s");
  });

  it.each(["SIGINT", "SIGTERM"] as const)("ends on %s with status 0 and leaves the phone book", async (signal) => {
    const listening = await startListening(["orders"], options());
    expect(await world.query("SELECT client_name FROM hawser.topic_addr")).toEqual([{ client_name: defaultName }]);
    listening.child.kill(signal);
    expect(await listening.ended).toMatchObject({ status: 0, stdout: "" });
    expect(await world.query("SELECT FROM hawser.topic_addr")).toEqual([]);
    expect(await world.query("SELECT clean FROM hawser.peers")).toEqual([{ clean: true }]);
  });

  it("told to stop while it starts, ends with status 0", async () => {
    await world.query("BEGIN");
    await world.query("LOCK TABLE hawser.topic_addr IN ACCESS EXCLUSIVE MODE");
    const starting = startHawser(["listen", "orders"], options());
    await eventually("it is starting", async () => {
      const rows = await world.query(
        `SELECT FROM pg_locks WHERE relation = 'hawser.topic_addr'::regclass AND NOT granted
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
      );
      return rows.length > 0;
    });
    starting.child.kill("SIGTERM");
    await world.query("ROLLBACK");
    expect(await starting.ended).toMatchObject({ status: 0, stdout: "" });
  });

  it("leaves standard input to others", async () => {
    const script = `printf 'one\\ntwo\\n' | while read line; do "$@" >/dev/null 2>&1; echo "$line"; done`;
    const loop = startShell(script, ["listen", "orders", "--timeout", "1"], world.url);
    expect((await loop.ended).stdout).toBe("one\ntwo\n");
  });

  it("refuses a name in use, values that are no numbers, and what excludes each other", async () => {
    await world.started("orders-1");
    const inUse = await hawser(["listen", "orders", "--name", "orders-1"], options());
    expect(inUse).toMatchObject({ status: 73, stdout: "" });
    expect(inUse.stderr).toContain('the name "orders-1" is held by another process');
    for (const [args, message] of [
      [["--count", "0"], '--count "0" is not a whole number from 1'],
      [["--timeout", "1.5"], '--timeout "1.5" is not a whole number from 1'],
      [["--base64", "--text"], "exclude each other"],
      [["--subscribe", "orders"], "[self_topic]"],
    ] as const) {
      const { status, stderr } = await hawser(["listen", "orders", ...args], options());
      expect(status).toBe(64);
      expect(stderr).toContain(message);
    }
    const long = await hawser(["listen", "x".repeat(250)], options());
    expect(long.stderr).toContain("too long for a name; choose one with --name");
  });

  it("ends with the status of the error when another process takes its name", async () => {
    const listening = await startListening(["orders"], options());
    await world.query("UPDATE hawser.peers SET epoch = epoch + 1 WHERE name = $1", [defaultName]);
    await world.query(
      "SELECT pg_terminate_backend(l.pid) FROM pg_locks AS l WHERE locktype = 'advisory' AND objsubid = 1 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    );
    const { status, stderr } = await listening.ended;
    expect(status).toBe(73);
    expect(stderr).toContain("[name_lost]");
  });
});

describe("hawser listen in a pipeline", () => {
  let world: PeerWorld;
  beforeEach(async () => {
    world = await peerWorld();
  });
  afterEach(() => world[Symbol.asyncDispose]());

  const pendingNumbers = async (): Promise<number> => {
    const [row] = await world.query<{ count: number }>(
      `SELECT count(*) FROM hawser.conn_messages JOIN hawser.conn_mess_number AS c USING (connection_key)
        WHERE (conn_messages.epoch, number) > (c.epoch, c.v)`,
    );
    return row!.count;
  };

  it.runIf(hasJq)("works with jq", async () => {
    const script = '"$@" | jq --unbuffered -r .payload';
    const pipeline = startShell(script, ["listen", "orders", "--json", "--count", "2"], world.url);
    await eventually("it listens", async () => (await world.query("SELECT FROM hawser.topic_addr")).length === 1);
    const shop = await world.started("shop-1");
    await shop.sendTo("orders", "one");
    await shop.sendTo("orders", "two");
    expect(await pipeline.ended).toMatchObject({ status: 0, stdout: "one\ntwo\n" });
  });

  it("ends in good order when its consumer is killed, and leaves what it could not write for the next start", async () => {
    const pipeline = startPipeline(["listen", "orders", "--json"], world.url);
    await eventually("it listens", async () => (await world.query("SELECT FROM hawser.topic_addr")).length === 1);
    const shop = await world.started("shop-1");
    expect(await shop.sendTo("orders", "read")).toMatchObject({ outcome: "delivered" });
    await pipeline.lines.length(1);
    process.kill(await pipeline.consumerPid, "SIGKILL");
    await eventually("its end of the pipe is closed", async () => !isAlive(await pipeline.consumerPid));
    for (const text of ["1", "2"]) expect(await shop.sendTo("orders", text)).toMatchObject({ outcome: "stored" });
    expect(await pipeline.status).toBe(0);
    expect(await world.query("SELECT clean FROM hawser.peers WHERE name = $1", [defaultName])).toEqual([
      { clean: true },
    ]);
    const next = await hawser(["listen", "orders", "--json", "--count", "2"], { databaseUrl: world.url });
    expect(jsonLines(next.stdout)).toMatchObject([
      { payload: "1", attempt: 1 },
      { payload: "2", attempt: 1 },
    ]);
  });

  it("takes no more than a consumer that does not read has room for, and ends all the same", async () => {
    const pipeline = startPipeline(["listen", "orders", "--json"], world.url, false);
    await eventually("it listens", async () => (await world.query("SELECT FROM hawser.topic_addr")).length === 1);
    const shop = await world.started("shop-1");
    const payloads = Array.from({ length: 40 }, (_, index) => `${index} ${"x".repeat(10_000)}`);
    const receipts = await Promise.all(payloads.map((payload) => shop.sendTo("orders", payload)));
    // A pipe of Linux holds 64 KiB.
    const delivered = receipts.filter(({ outcome }) => outcome === "delivered").length;
    expect(delivered).toBeLessThanOrEqual(7);
    process.kill(await pipeline.listenerPid, "SIGTERM");
    expect(await pipeline.status).toBe(0);
    const left = await pendingNumbers();
    expect(left).toBeGreaterThanOrEqual(payloads.length - 7);
    const next = await hawser(["listen", "orders", "--json", "--count", `${left}`], { databaseUrl: world.url });
    expect(jsonLines(next.stdout).map(({ payload }) => payload)).toEqual(payloads.slice(-left));
  });

  it("passes a hundred thousand messages on, all and in order, as fast as they are read", async () => {
    const pipeline = startPipeline(["listen", "orders", "--json"], world.url);
    await eventually("it listens", async () => (await world.query("SELECT FROM hawser.topic_addr")).length === 1);
    const count = 100_000;
    const input = Array.from({ length: count }, (_, index) => `${index}\n`).join("");
    const { status } = await hawser(["send", "orders", "--lines", "--quiet"], { databaseUrl: world.url, input });
    expect(status).toBe(0);
    await pipeline.lines.until("all were read", (all) => all.length >= count, 60_000);
    expect(pipeline.lines.all.map((line) => JSON.parse(line).payload)).toEqual(
      Array.from({ length: count }, (_, index) => String(index)),
    );
    process.kill(await pipeline.listenerPid, "SIGTERM");
    expect(await pipeline.status).toBe(0);
  });

  it.runIf(existsSync("/dev/full"))("tells of a full disk, and leaves the message for the next start", async () => {
    const script = '"$@" >/dev/full';
    const listening = startShell(script, ["listen", "orders", "--json"], world.url);
    await eventually("it listens", async () => (await world.query("SELECT FROM hawser.topic_addr")).length === 1);
    const shop = await world.started("shop-1");
    expect(await shop.sendTo("orders", "kept")).toMatchObject({ outcome: "stored" });
    const { status, stderr } = await listening.ended;
    expect(status).toBe(74);
    expect(stderr.match(/ENOSPC/g)).toHaveLength(1);
    const next = await hawser(["listen", "orders", "--json", "--count", "1"], { databaseUrl: world.url });
    expect(jsonLines(next.stdout)).toMatchObject([{ payload: "kept" }]);
  });

  it("writes to a file as to a pipe", async () => {
    const file = join(temporaryDirectory(), "messages");
    const listening = startShell(
      `"$@" >'${file}'; wc -l <'${file}'`,
      ["listen", "orders", "--count", "2", "--json"],
      world.url,
    );
    await eventually("it listens", async () => (await world.query("SELECT FROM hawser.topic_addr")).length === 1);
    const shop = await world.started("shop-1");
    await shop.sendTo("orders", "one");
    await shop.sendTo("orders", "two");
    expect((await listening.ended).stdout.trim()).toBe("2");
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
