import { headers } from "@nats-io/transport-node";
import { describe, expect, inject, it } from "vitest";
import { readHeaders } from "../../../src/nats/operations/index.js";
import { startNatsServer } from "../../support/nats-server.js";
import { bytesOf, failureOf, hang, operationsOf, timeoutMs } from "./operations-of.js";

describe("request", () => {
  it("resolves to the payload of the answer, as it was sent", async () => {
    await using used = await operationsOf(inject("natsUrl"));
    const { operations, stock } = used;
    stock.subscribe("operations.request.echo", { callback: (_error, message) => void message.respond(message.data) });
    await stock.flush();
    for (const payload of [new Uint8Array(0), Uint8Array.of(0, 255), bytesOf(1_000_000)]) {
      const answer = await operations.request("operations.request.echo", payload, { timeoutMs });
      expect(Buffer.from(answer).equals(payload)).toBe(true);
    }
  });

  it("sends headers", async () => {
    await using used = await operationsOf(inject("natsUrl"));
    const { operations, stock } = used;
    const subject = "operations.request.headers";
    stock.subscribe(subject, { callback: (_error, message) => void message.respond(message.headers!.get("x-a")) });
    await stock.flush();
    const given = readHeaders({ "x-a": "ä" });
    const answer = await operations.request(subject, bytesOf(1), { headers: given, timeoutMs });
    expect(Buffer.from(answer).toString()).toBe("ä");
  });

  it("fails at once where nobody listens, with no_responders", async () => {
    await using used = await operationsOf(inject("natsUrl"));
    const begun = performance.now();
    const error = await failureOf("no_responders", () =>
      used.operations.request("operations.request.nobody", bytesOf(1), { timeoutMs: 60_000 }),
    );
    expect(performance.now() - begun).toBeLessThan(30_000);
    expect(error.message).toContain('"operations.request.nobody"');
  });

  it("fails with nats_timeout when the time is over, and names it", async () => {
    await using used = await operationsOf(inject("natsUrl"));
    used.stock.subscribe("operations.request.silent", { callback: () => undefined });
    await used.stock.flush();
    const error = await failureOf("nats_timeout", () =>
      used.operations.request("operations.request.silent", bytesOf(1), { timeoutMs: 123 }),
    );
    expect(error.message).toContain("within 123 ms");
    expect(error.outcome).toBe("unknown");
  });

  it("fails with nats_failed where a service answers that it failed, with its code and words", async () => {
    await using used = await operationsOf(inject("natsUrl"));
    const failed = headers();
    failed.set("Nats-Service-Error-Code", "42");
    failed.set("Nats-Service-Error", "out of stock");
    const subject = "operations.request.service";
    used.stock.subscribe(subject, {
      callback: (_error, message) => void message.respond("ignored", { headers: failed }),
    });
    await used.stock.flush();
    const error = await failureOf("nats_failed", () => used.operations.request(subject, bytesOf(1), { timeoutMs }));
    expect(error.message).toContain("error 42: out of stock");
    expect(error.detail).toBe("Nats-Service-Error-Code 42");
  });

  it("refuses a payload beyond max_payload", async () => {
    await using server = await startNatsServer({ config: "max_payload: 1000" });
    await using used = await operationsOf(server.url);
    const error = await failureOf("payload_too_large", () =>
      used.operations.request("a", bytesOf(1_001), { timeoutMs }),
    );
    expect(error.message).toContain("1000");
  });

  it("fails with nats_permission_denied for a subject that the user may not publish to", async () => {
    await using server = await startNatsServer({
      config: `authorization { users: [
        { user: u, password: p, permissions: { publish: { deny: ["secret.>"] } } }
      ] }`,
    });
    await using used = await operationsOf(server.url, { user: "u", pass: "p" });
    const { operations } = used;
    const refused = Array.from({ length: 5 }, () =>
      failureOf("nats_permission_denied", () => operations.request("secret.a", bytesOf(1), { timeoutMs })),
    );
    const [error] = await Promise.all(refused);
    expect(error!.message).toContain('"secret.a"');
    expect(error!.detail).toContain("Permissions Violation");
    await failureOf("no_responders", () => operations.request("open.a", bytesOf(1), { timeoutMs }));
  });

  it("fails with nats_permission_denied where the user may not receive answers", async () => {
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

  it("settles by its deadline where the server hangs", async () => {
    await using server = await startNatsServer();
    await using used = await operationsOf(server.url);
    await hang(server, used);
    const begun = performance.now();
    await failureOf("nats_timeout", () => used.operations.request("a", bytesOf(1), { timeoutMs: 150 }));
    await failureOf("nats_timeout", () => used.operations.flush({ timeoutMs: 150 }));
    expect(performance.now() - begun).toBeLessThan(10_000);
  });
});
