import { hostname } from "node:os";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { gate } from "../peer/support/gate.js";
import { type PeerWorld, peerWorld } from "../peer/support/world.js";
import { nodeCommand } from "../support/built-programs.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { projectDirectory, startCommand } from "../support/program.js";
import { type HawserOptions, hawser, hawserProcess, isOnPath, jsonLines, startHawser } from "./support/hawser.js";

const firstName = `send-${hostname()}-1`;

// The one of util-linux: others have other flags.
const hasScript = process.platform === "linux" && isOnPath("script");

describe("hawser send", () => {
  let world: PeerWorld;
  const send = (args: readonly string[], options: HawserOptions = {}) =>
    hawser(["send", ...args], { databaseUrl: world.url, ...options });

  beforeEach(async () => {
    world = await peerWorld();
  });
  afterEach(() => world[Symbol.asyncDispose]());

  it.each([[[]], [["--lines"]]])("takes no directory for an empty input, %j", async (flags) => {
    const command = [...nodeCommand("src/cli/main.ts"), "send", "orders", ...flags];
    const shell = startCommand("sh", ["-c", '"$@" </', "sh", ...command], {
      cwd: projectDirectory,
      env: { HAWSER_DATABASE_URL: world.url },
    });
    expect(await shell.ended).toMatchObject({
      status: 64,
      stdout: "",
      stderr: "hawser: standard input is a directory; give a file or a pipe with the message [invalid_argument]\n",
    });
  });

  it("sends its argument, and prints the receipt for people or for programs", async () => {
    const orders = await world.started("orders-1");
    expect(await send(["orders", "20 m of rope"])).toEqual({
      status: 0,
      signal: null,
      stdout: "delivered to orders-1\n",
      stderr: "",
    });
    const { stdout } = await send([
      "orders",
      "more",
      "--json",
      "--header",
      "trace=1",
      "--header",
      "empty=",
      "--from",
      "shop",
    ]);
    expect(jsonLines(stdout)).toEqual([{ outcome: "delivered", peer: "orders-1" }]);
    expect(orders.received.all).toMatchObject([
      { text: "20 m of rope", sender: firstName, from: firstName, headers: [] },
      {
        text: "more",
        sender: firstName,
        from: "shop",
        headers: [
          ["trace", "1"],
          ["empty", ""],
        ],
      },
    ]);
    expect(await send(["orders", "quietly", "--quiet"])).toMatchObject({ status: 0, stdout: "", stderr: "" });
  });

  it.each([
    ["all of standard input", ["orders"], "two\nlines\n", "two\nlines\n"],
    ["standard input for -", ["orders", "-"], "text", "text"],
    ["base64 of it", ["orders", "--base64"], "dHdvCg==\n", "two\n"],
    ["a base64 argument", ["orders", "dHdv", "--base64"], "", "two"],
    ["an argument that looks like a flag", ["orders", "--", "-5"], "", "-5"],
  ])("sends %s", async (_, args, input, expected) => {
    const orders = await world.started("orders-1");
    expect(await send(args, { input })).toMatchObject({ status: 0, stderr: "" });
    expect(orders.texts).toEqual([expected]);
  });

  it("stores for a listener that it has met, also when it was another call that met it", async () => {
    const orders = await world.started("orders-1");
    await send(["orders", "1"]);
    await orders.stop();
    for (const text of ["2", "3", "4"]) {
      expect(await send(["orders", text])).toMatchObject({ status: 0, stdout: "stored for orders-1\n" });
    }
    await orders.record();
    // One call after another is one sender: they are in order.
    await orders.received.length(4);
    expect(orders.texts).toEqual(["1", "2", "3", "4"]);
  });

  it("leaves one name behind, and not one for each call", async () => {
    await world.started("orders-1");
    for (let calls = 0; calls < 4; calls++) await send(["orders", "text"]);
    const count = (table: string) => world.query<{ count: number }>(`SELECT count(*) FROM hawser.${table}`);
    expect(await world.query("SELECT name, clean FROM hawser.peers WHERE name <> 'orders-1'")).toEqual([
      { name: firstName, clean: true },
    ]);
    expect(await count("conn_key_map")).toEqual([{ count: 1 }]);
    expect(await count("sender_listener")).toEqual([{ count: 1 }]);
    expect(await world.query("SELECT topic FROM hawser.topic_addr")).toEqual([{ topic: "orders" }]);
  });

  it("takes another name while that one is in use", async () => {
    const orders = await world.started("orders-1");
    const ends = await Promise.all(
      ["a", "b", "c", "d"].map((text) => hawserProcess(["send", "orders", text], { databaseUrl: world.url })),
    );
    expect(ends.map(({ status }) => status)).toEqual([0, 0, 0, 0]);
    await orders.received.length(4);
    expect(orders.texts.toSorted()).toEqual(["a", "b", "c", "d"]);
  });

  it("refuses a given name that is in use", async () => {
    await world.started("orders-1");
    const { status, stderr } = await send(["orders", "text", "--name", "orders-1"]);
    expect(status).toBe(73);
    expect(stderr).toContain("[name_in_use]");
  });

  it("does not serve the topic that it sends under: what others send there goes to its listeners", async () => {
    const orders = await world.started("orders-1");
    const billing = await world.started("billing-1");
    const shop = await world.started("shop-1");
    const sending = startHawser(["send", "orders", "--lines", "--from", "billing", "--json"], {
      databaseUrl: world.url,
    });
    sending.child.stdin!.write("first\n");
    await sending.firstLine;
    expect(orders.received.all).toMatchObject([{ text: "first", from: "billing", sender: firstName }]);
    for (let sent = 0; sent < 6; sent++)
      expect(await shop.sendTo("billing", "bill")).toMatchObject({ peer: "billing-1" });
    expect(billing.texts).toHaveLength(6);
    sending.child.stdin!.end();
    expect(await sending.ended).toMatchObject({ status: 0 });
  });

  it("drops replies to its own name, and says so; those to a given name wait", async () => {
    await world.started("echo-1", {}, (message) => message.reply("an answer"));
    const named = await send(["echo", "hello", "--name", "asker"]);
    expect(named).toMatchObject({ status: 0, stderr: "" });
    await eventually("the answer waits", async () => (await world.storedMessages()) === 1);
    const asker = await world.started("asker");
    await asker.received.length(1);
    expect(asker.texts).toEqual(["an answer"]);

    const sending = startHawser(["send", "echo", "--lines", "--json"], { databaseUrl: world.url });
    sending.child.stdin!.write("hello\n");
    await sending.firstLine;
    await eventually("the answer was taken", async () => (await world.storedMessages()) === 0);
    sending.child.stdin!.end();
    expect((await sending.ended).stderr).toBe(
      "1 reply came and was dropped; give --name to have replies wait for a peer of that name\n",
    );
  });

  it("fails with the status of the error", async () => {
    expect(await send(["nobody", "text"])).toMatchObject({ status: 68, stdout: "" });
    const own = await send(["orders", "text", "--from", "orders"]);
    expect(own.stderr).toContain("[self_topic]");
    expect(await send(["orders", "", "--quiet"])).toMatchObject({ status: 64 });
    expect((await send(["orders", "a b", "--base64"])).stderr).toContain("the message is not base64");
    expect((await send(["orders", "text", "--header", "trace"])).stderr).toContain(
      '--header "trace" is not of the form',
    );
    expect((await send(["orders", "text", "--lines"])).stderr).toContain("--lines reads standard input");
    expect((await send(["orders", "text", "--tls-ca", "ca.pem"])).stderr).toContain(
      "--tls-ca needs both --tls-cert and --tls-key",
    );
  });

  it("sends at most once where that is asked for", async () => {
    const orders = await world.started("orders-1");
    expect(await send(["orders", "now", "--at-most-once"])).toMatchObject({ stdout: "sent to orders-1\n" });
    await orders.received.length(1);
    expect(orders.received.all).toMatchObject([{ delivery: "at-most-once" }]);
  });

  it("with --all sends to every listener, and fails if one of them cannot take it", async () => {
    await world.started("news-1");
    await world.started("news-2");
    const { status, stdout } = await send(["news", "to all", "--all"]);
    expect(status).toBe(0);
    expect(stdout.split("\n").toSorted()).toEqual(["", "delivered to news-1", "delivered to news-2"]);
    await world.started("news-3", { maxMessageBytes: 3 });
    const partly = await send(["news", "to all", "--all", "--json"]);
    expect(partly.status).toBe(64);
    expect(jsonLines(partly.stdout)).toContainEqual({
      outcome: "failed",
      peer: "news-3",
      error: { code: "invalid_argument", message: expect.stringContaining("3") },
    });
    expect(jsonLines(partly.stdout).filter(({ outcome }) => outcome === "delivered")).toHaveLength(2);
  });
});

describe("hawser send --lines", () => {
  let world: PeerWorld;
  beforeEach(async () => {
    world = await peerWorld();
  });
  afterEach(() => world[Symbol.asyncDispose]());

  it("sends each line as it is, in order, without those that are empty", async () => {
    const orders = await world.started("orders-1");
    const input = Buffer.concat([Buffer.from("one\r\n\n"), Buffer.from([0xff, 0x00, 0x0a]), Buffer.from("last")]);
    const { status, stdout } = await hawser(["send", "orders", "--lines", "--json"], { databaseUrl: world.url, input });
    expect(status).toBe(0);
    expect(jsonLines(stdout)).toEqual([1, 3, 4].map((line) => ({ line, outcome: "delivered", peer: "orders-1" })));
    expect(orders.texts).toEqual(["one\r", "\ufffd\u0000", "last"]);
  });

  it("sends more than the queue for a listener holds, without one being refused", async () => {
    const orders = await world.started("orders-1");
    const lines = Array.from({ length: 25_000 }, (_, index) => `message ${index}`);
    const input = `${lines.join("\n")}\n`;
    const { status, stdout, stderr } = await hawser(["send", "orders", "--lines"], { databaseUrl: world.url, input });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout).toMatch(/^25000 messages: /);
    await orders.received.length(lines.length);
    expect(orders.texts).toEqual(lines);
    await orders.stop();
    const again = await hawser(["send", "orders", "--lines"], { databaseUrl: world.url, input });
    expect(again).toMatchObject({ status: 0, stdout: "25000 messages: 25000 stored\n" });
  });

  it("ends at the first line that fails, names it, and confirms what was before", async () => {
    const orders = await world.started("orders-1");
    const { status, stdout, stderr } = await hawser(["send", "orders", "--lines", "--base64"], {
      databaseUrl: world.url,
      input: "b25l\ndHdv\nno base64!\nZm91cg==\n",
    });
    expect(status).toBe(64);
    expect(stderr).toContain("line 3 is not base64");
    expect(stdout).toBe("2 messages: 2 delivered\n");
    expect(orders.texts).toEqual(["one", "two"]);
  });

  it("told to stop, confirms what it has read, and says that it was not all", async () => {
    const orders = await world.started("orders-1");
    const sending = startHawser(["send", "orders", "--lines", "--json"], { databaseUrl: world.url });
    sending.child.stdin!.write("one\ntwo\nhalf a li");
    await orders.received.length(2);
    sending.child.kill("SIGINT");
    const { status, stdout, stderr } = await sending.ended;
    expect(status).toBe(75);
    expect(jsonLines(stdout)).toHaveLength(2);
    expect(stderr).toContain("stopped by a signal while reading. 2 messages");
    expect(orders.texts).toEqual(["one", "two"]);
  });

  it.runIf(hasScript)("shows how far it is on a terminal, also on one that has no width", async () => {
    await world.started("orders-1");
    const command = `seq 3000 | ${nodeCommand("src/cli/main.ts").join(" ")} send orders --lines`;
    for (const [before, spins] of [
      ["stty cols 80 rows 24; ", true],
      ["stty cols 0 rows 0; ", false],
    ] as const) {
      const terminal = startCommand("script", ["-qec", `${before}${command}`, "/dev/null"], {
        cwd: projectDirectory,
        env: { HAWSER_DATABASE_URL: world.url, CI: undefined, TERM: "xterm" },
      });
      const { status, stdout } = await terminal.ended;
      expect(status).toBe(0);
      expect(stdout).toContain("3000 messages: ");
      expect(stdout.includes("Sending") || stdout.includes("confirmed")).toBe(spins);
    }
  });

  it("while nothing is confirmed, reads on only as far as the window goes", async () => {
    // The listener holds its handler, and the store is locked.
    const { opened, open } = gate();
    await world.started("orders-1", {}, () => opened);
    const sending = startHawser(["send", "orders", "--lines", "--quiet"], { databaseUrl: world.url });
    await world.query("BEGIN");
    await world.query("LOCK TABLE hawser.conn_messages IN ACCESS EXCLUSIVE MODE");
    const stdin = sending.child.stdin!;
    const lines = 16_384;
    const line = `${"x".repeat(1023)}\n`;
    for (let written = 0; written < lines; written++) stdin.write(line);
    stdin.end();
    await eventually("it waits for the store", async () => {
      const waiting = await rowsOf(
        world.url,
        `SELECT FROM pg_locks WHERE relation = 'hawser.conn_messages'::regclass AND NOT granted
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
      );
      return waiting.length > 0;
    });
    // A quarter of the queue, and what pipes hold.
    expect(stdin.writableLength).toBeGreaterThan((lines - 2_500 - 500) * line.length);
    await world.query("ROLLBACK");
    open();
    expect(await sending.ended).toMatchObject({ status: 0, stderr: "" });
  });
});
