import { hostname } from "node:os";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type PeerWorld, peerWorld } from "../peer/support/world.js";
import { slowIt } from "../support/slow-it.js";
import { type HawserOptions, hawser, hawserProcess, jsonLines } from "./support/hawser.js";

const firstName = `send-${hostname()}-1`;

let world: PeerWorld;
let round = 0;
/** Each test has a topic of its own, and its listeners are named after it. */
let topic: string;
let listener: string;

beforeAll(async () => {
  world = await peerWorld({ nats: false, keepsConnections: true });
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
  it("sends its argument, and prints the receipt for people or for programs", async () => {
    const { received } = await world.started(listener);
    expect(await hawserProcess(["send", topic, "20 m of rope"], { databaseUrl: world.url })).toEqual({
      status: 0,
      signal: null,
      stdout: `delivered to ${listener}\n`,
      stderr: "",
    });
    const headers = ["--header", "trace=1", "--header", "empty="];
    const { stdout } = await send([topic, "more", "--json", ...headers, "--from", "shop"]);
    expect(jsonLines(stdout)).toEqual([{ outcome: "delivered", peer: listener }]);
    const sent = [
      ["trace", "1"],
      ["empty", ""],
    ];
    expect(received.all).toMatchObject([
      { text: "20 m of rope", sender: firstName, senderTopic: firstName, headers: [] },
      { text: "more", sender: firstName, senderTopic: "shop", headers: sent },
    ]);
    expect(await send([topic, "quietly", "--quiet"])).toMatchObject({ status: 0, stdout: "", stderr: "" });
    expect(await send([topic, "now", "--at-most-once"])).toMatchObject({ stdout: `sent to ${listener}\n` });
    await received.length(4);
    expect(received.all[3]).toMatchObject({ text: "now", delivery: "at-most-once" });
  });

  it("sends text or base64, and reads no standard input", async () => {
    const { received } = await world.started(listener);
    for (const [args, expected] of [
      [["dHdv", "--base64"], "two"],
      [["--", "-5"], "-5"],
    ] as const) {
      expect(await send([topic, ...args]), args.join(" ")).toMatchObject({ status: 0, stderr: "" });
      expect(received.all.at(-1)!.text, args.join(" ")).toBe(expected);
    }
    for (const [args, message] of [
      [[], "`hawser send` needs PAYLOAD"],
      [["-"], "`hawser send` reads no standard input"],
    ] as const)
      expect(await send([topic, ...args], { input: "text" })).toMatchObject({
        status: 64,
        stderr: expect.stringContaining(message),
      });
    expect(received.all).toHaveLength(2);
  });

  it("stores for a listener that another call has met, in order, and leaves one name behind", async () => {
    const orders = await world.started(listener);
    await send([topic, "1"]);
    await orders.stop();
    const left = async () =>
      await Promise.all(
        [
          "SELECT name, clean FROM hawser_peer_data.peers WHERE name LIKE 'send-%' ORDER BY name",
          "SELECT channel_id FROM hawser_peer_data.channels",
          "SELECT FROM hawser_peer_data.routes",
          "SELECT FROM hawser_peer_data.listeners WHERE listener_name LIKE 'send-%'",
        ].map((select) => world.query(select)),
      );
    const before = await left();
    expect(before[0]).toContainEqual({ name: firstName, clean: true });
    for (const text of ["2", "3", "4"]) {
      expect(await send([topic, text])).toMatchObject({ status: 0, stdout: `stored for ${listener}\n` });
    }
    expect(await left()).toEqual(before);
    expect(before[3]).toEqual([]);
    await orders.record();
    await orders.received.length(4);
    expect(orders.texts).toEqual(["1", "2", "3", "4"]);
  });

  slowIt("fails with the status of the error", async () => {
    await world.started(listener);
    expect(await send(["nobody", "text"])).toMatchObject({ status: 69, stdout: "" });
    expect(await send([topic, "", "--quiet"])).toMatchObject({ status: 64 });
    const inUse = await send([topic, "text", "--name", listener]);
    expect([inUse.status, inUse.stderr]).toEqual([73, expect.stringContaining("[name_in_use]")]);
    for (const [args, message] of [
      [["text", "--from", topic], "[self_topic]"],
      [["a b", "--base64"], "the message is not base64"],
      [["text", "--header", "trace"], '--header "trace" is not of the form'],
      [["text", "--tls-ca", "ca.pem"], "--tls-ca needs both --tls-cert and --tls-key"],
    ] as const) {
      expect((await send([topic, ...args])).stderr).toContain(message);
    }
  });

  it("with --all sends to every listener, and fails if one of them cannot take it", async () => {
    const [one, two, small] = [1, 2, 3].map((number) => `${topic}-${number}`) as [string, string, string];
    await world.started(one);
    await world.started(two);
    const { status, stdout } = await send([topic, "to all", "--all"]);
    expect(status).toBe(0);
    expect(stdout.split("\n").toSorted()).toEqual(["", `delivered to ${one}`, `delivered to ${two}`]);
    await world.started(small, { maxMessageBytes: 3 });
    const partly = await send([topic, "to all", "--all", "--json"]);
    expect(partly.status).toBe(64);
    expect(jsonLines(partly.stdout)).toContainEqual({
      outcome: "failed",
      peer: small,
      error: { code: "invalid_argument", message: expect.stringContaining("3") },
    });
    expect(jsonLines(partly.stdout).filter(({ outcome }) => outcome === "delivered")).toHaveLength(2);
  });
});
