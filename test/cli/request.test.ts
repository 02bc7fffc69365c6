/**
 * `hawser request`: a request of one listener, and its answer.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Handler, type PeerWorld, peerWorld } from "../peer/support/world.js";
import { hawser, jsonLines } from "./support/hawser.js";

let world: PeerWorld;

beforeAll(async () => {
  world = await peerWorld({ keepsConnections: true });
});
afterAll(() => world[Symbol.asyncDispose]());

const request = (args: readonly string[], input?: string) =>
  hawser(["request", ...args], { databaseUrl: world.url, input });

/** Answers with the request behind a mark, and the headers of the request. */
const echo: Handler = (message) => ({ payload: `> ${message.text()}`, headers: [...message.headers] });

describe("hawser request", () => {
  it("prints the answer for people, and with its headers for programs", async () => {
    await world.started("echo-1", {}, echo);
    expect(await request(["echo", "rope"])).toMatchObject({ status: 0, stdout: "> rope\n", stderr: "" });
    expect((await request(["echo"])).stdout).toBe("> \n");
    expect((await request(["echo", "-"], "20 m")).stdout).toBe("> 20 m\n");
    expect((await request(["echo", "cm9wZQ==", "--base64"])).stdout).toBe("> rope\n");
    const { stdout } = await request(["echo", "rope", "--json", "--header", "trace=1"]);
    expect(jsonLines(stdout)).toMatchObject([
      { peer: "echo-1", headers: [["trace", "1"]], payload: "> rope", encoding: "utf8" },
    ]);
  });

  it("prints nothing that a terminal obeys, and bytes as base64", async () => {
    await world.started("bytes-1", {}, ({ payload }) => ({
      payload: payload.length === 0 ? Buffer.from([0, 255]) : "\u001b]0;x\u0007",
    }));
    expect((await request(["bytes", "x"])).stdout).toBe("\\u001b]0;x\\u0007\n");
    expect((await request(["bytes"])).stdout).toBe("base64 AP8=\n");
    expect(jsonLines((await request(["bytes", "--json"])).stdout)).toMatchObject([
      { payload: "AP8=", encoding: "base64" },
    ]);
  });

  it("fails with the code of the request: nobody listens, no answer in time, a handler that throws", async () => {
    expect((await request(["nobody", "x"])).stderr).toContain("[no_listener]");
    await world.started("slow-1", {}, () => new Promise<never>(() => undefined));
    expect((await request(["slow", "x", "--timeout", "50ms"])).stderr).toContain("[request_timeout]");
    await world.started("wrong-1", {}, () => {
      throw new Error("not today");
    });
    const wrong = await request(["wrong", "x"]);
    expect(wrong).toMatchObject({ stdout: "", stderr: expect.stringContaining("not today") });
    expect(wrong.status).not.toBe(0);
  });

  it("refuses a time without a unit, before it starts anything", async () => {
    const { status, stderr } = await request(["echo", "x", "--timeout", "10"]);
    expect(status).toBe(64);
    expect(stderr).toMatch(/^hawser: --timeout "10" is not a duration from 1ms to \d+ms; write a unit: 10ms or 10s \[/);
  });
});
