import { hostname } from "node:os";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { gate } from "../peer/support/gate.js";
import { type PeerWorld, peerWorld } from "../peer/support/world.js";
import { nodeCommand } from "../support/built-programs.js";
import { eventually } from "../support/eventually.js";
import { projectDirectory, startCommand } from "../support/program.js";
import { type HawserOptions, hawser, hawserProcess, isOnPath, startHawser, waitsFor } from "./support/hawser.js";

const firstName = `send-${hostname()}-1`;

// The one of util-linux: others have other flags.
const hasScript = process.platform === "linux" && isOnPath("script");

let world: PeerWorld;
let round = 0;
/** Each test has a topic of its own, and its listeners are named after it. */
let topic: string;
let listener: string;

beforeAll(async () => {
  world = await peerWorld({ nats: false });
});
afterAll(() => world[Symbol.asyncDispose]());
beforeEach(() => {
  round += 1;
  topic = `topic${round}`;
  listener = `${topic}-1`;
});

const send = (args: readonly string[], options: HawserOptions = {}) =>
  hawser(["send", ...args], { databaseUrl: world.url, ...options });

describe("hawser send", () => {
  it("takes no directory for an empty input", async () => {
    const command = [...nodeCommand("src/cli/main.ts"), "send", topic, "--lines"];
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

  it("takes another name while that one is in use", async () => {
    const orders = await world.started(listener);
    const ends = await Promise.all(
      ["a", "b", "c"].map((text) => hawserProcess(["send", topic, text], { databaseUrl: world.url })),
    );
    expect(ends.map(({ status }) => status)).toEqual([0, 0, 0]);
    await orders.received.length(3);
    expect(orders.texts.toSorted()).toEqual(["a", "b", "c"]);
  });

  it("does not serve the topic that it sends under: what others send there goes to its listeners", async () => {
    const orders = await world.started(listener);
    const billing = await world.started("billing-1");
    const shop = await world.started("shop-1");
    const sending = startHawser(["send", topic, "--lines", "--from", "billing", "--json"], {
      databaseUrl: world.url,
    });
    sending.child.stdin!.write("first\n");
    await sending.firstLine;
    expect(orders.received.all).toMatchObject([{ text: "first", senderTopic: "billing", sender: firstName }]);
    for (let sent = 0; sent < 6; sent++)
      expect(await shop.send("billing", "bill")).toMatchObject({ peer: "billing-1" });
    expect(billing.texts).toHaveLength(6);
    sending.child.stdin!.end();
    expect(await sending.ended).toMatchObject({ status: 0 });
  });

  it("drops replies to its own name, and says so; those to a given name wait", async () => {
    await world.started(listener, {}, (message) => message.reply("an answer"));
    const before = await world.storedMessages();
    expect(await send([topic, "hello", "--name", "asker"])).toMatchObject({ status: 0, stderr: "" });
    await eventually("the answer waits", async () => (await world.storedMessages()) === before + 1);
    const asker = await world.started("asker");
    await asker.received.length(1);
    expect(asker.texts).toEqual(["an answer"]);

    const sending = startHawser(["send", topic, "--lines", "--json"], { databaseUrl: world.url });
    sending.child.stdin!.write("hello\n");
    await sending.firstLine;
    await eventually("the answer was taken", async () => (await world.storedMessages()) === before);
    sending.child.stdin!.end();
    expect((await sending.ended).stderr).toBe(
      "1 reply came and was dropped; with --name, replies wait for a peer of that name\n",
    );
  });
});

describe("hawser send --lines", () => {
  it.runIf(hasScript)("shows how far it is on a terminal, also on one that has no width", async () => {
    await world.started(listener);
    const command = `seq 1500 | ${nodeCommand("src/cli/main.ts").join(" ")} send ${topic} --lines`;
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
      expect(stdout).toContain("1500 messages: ");
      expect(stdout.includes("Sending") || stdout.includes("confirmed")).toBe(spins);
    }
  });

  it("while nothing is confirmed, reads on only as far as the window goes", async () => {
    // The listener holds its handler, and the store is locked.
    const { opened, open } = gate();
    await using own = await peerWorld({ nats: false });
    await own.started(listener, {}, () => opened);
    const sending = startHawser(["send", topic, "--lines", "--quiet"], { databaseUrl: own.url });
    await own.query("BEGIN");
    await own.query("LOCK TABLE hawser_data.stored_messages IN ACCESS EXCLUSIVE MODE");
    const stdin = sending.child.stdin!;
    const lines = 8_192;
    const line = `${"x".repeat(1023)}\n`;
    for (let written = 0; written < lines; written++) stdin.write(line);
    stdin.end();
    await eventually("it waits for the store", () => waitsFor("stored_messages", own));
    // A quarter of the queue, and what pipes hold.
    expect(stdin.writableLength).toBeGreaterThan((lines - 2_500 - 500) * line.length);
    await own.query("ROLLBACK");
    open();
    expect(await sending.ended).toMatchObject({ status: 0, stderr: "" });
  });

  it("sends more than the queue for a listener holds, without one being refused", async () => {
    const orders = await world.started(listener);
    const lines = Array.from({ length: 12_000 }, (_, index) => `message ${index}`);
    const input = `${lines.join("\n")}\n`;
    const sendAll = () => send([topic, "--lines"], { input });
    const { status, stdout, stderr } = await sendAll();
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout).toMatch(/^12000 messages: /);
    await orders.received.length(lines.length);
    expect(orders.texts).toEqual(lines);
    await orders.stop();
    const again = await sendAll();
    expect(again).toMatchObject({ status: 0, stdout: "12000 messages: 12000 stored\n" });
  });
});
