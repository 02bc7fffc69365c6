import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { readHeaders } from "../../../src/nats/connections/headers.js";
import { startNatsServer } from "../../support/nats-server.js";
import { noTimersAbove } from "../../support/timers.js";
import { bytesOf, failureOf, hang, type Operations, operationsOf, timeoutMs } from "./operations-of.js";

/** On the server of the run. */
let used: Operations;
beforeAll(async () => {
  used = await operationsOf(inject("natsUrl"));
});
afterAll(() => used?.[Symbol.asyncDispose]());

describe("request", () => {
  it("sends headers", async () => {
    const { operations, stock } = used;
    const subject = "operations.request.headers";
    stock.subscribe(subject, { callback: (_error, message) => void message.respond(message.headers!.get("x-a")) });
    await stock.flush();
    const given = readHeaders({ "x-a": "ä" });
    const answer = await operations.request(subject, bytesOf(1), { headers: given, timeoutMs });
    expect(Buffer.from(answer).toString()).toBe("ä");
  });

  it("fails with nats_permission_denied if the user may not receive answers", async () => {
    await using server = await startNatsServer({
      config: `authorization { users: [
        { user: u, password: p, permissions: { subscribe: { deny: ["_INBOX.>"] } } }
      ] }`,
    });
    await using used = await operationsOf(server.url, { user: "u", pass: "p" });
    for (let round = 0; round < 2; round++) {
      await failureOf("nats_permission_denied", () => used.operations.request("a", bytesOf(1), { timeoutMs }));
    }
  });

  it("leaves its outcome open when the server dies before the answer", async () => {
    await using server = await startNatsServer();
    await using used = await operationsOf(server.url);
    const asked = new Promise<void>((resolve) => {
      used.stock.subscribe("held", { callback: () => resolve() });
    });
    await used.stock.flush();
    const failure = failureOf("outcome_unknown", () =>
      used.operations.request("held", bytesOf(1), { timeoutMs: 60_000 }),
    );
    await asked;
    await server.kill();
    expect((await failure).message).toContain('request to "held"');
  });

  it("ends by its deadline if the server hangs", async () => {
    await using server = await startNatsServer();
    await using used = await operationsOf(server.url);
    await hang(server, used);
    noTimersAbove(150);
    await failureOf("nats_timeout", () => used.operations.request("a", bytesOf(1), { timeoutMs: 150 }));
    await failureOf("nats_timeout", () => used.operations.flush({ timeoutMs: 150 }));
  });
});
