import { jetstreamManager } from "@nats-io/jetstream";
import { describe, expect, inject, it } from "vitest";
import { readHeaders } from "../../../src/nats/connections/headers.js";
import { startNatsServer } from "../../support/nats-server.js";
import { bytesOf, failureOf, interceptArrivals, type Operations, operationsOf, timeoutMs } from "./operations-of.js";

/** Publishes once with an id. */
function publishOnce(
  { operations }: Operations,
  subject: string,
  payload: Uint8Array,
  messageId: string,
  { headers, limitMs = timeoutMs }: { headers?: ReturnType<typeof readHeaders>; limitMs?: number } = {},
) {
  return operations.streams.publishOnce(subject, payload, { headers, messageId, timeoutMs: limitMs });
}

async function addStream({ stock }: Operations, name: string, rest: object = {}) {
  const manager = await jetstreamManager(stock);
  await manager.streams.add({ name, subjects: [`${name}.>`], ...rest });
  return manager;
}

const permissions = (rules: string) => `authorization { users: [
  { user: admin, password: p }, { user: u, password: p, permissions: { ${rules} } }
] }`;
const user = { user: "u", pass: "p" };
const admin = { user: "admin", pass: "p" };

describe.concurrent("streams.publishOnce", () => {
  it("publishes into a stream what it is given, in order, and says that all is stored", async () => {
    await using used = await operationsOf(inject("natsUrl"));
    const manager = await addStream(used, "once_all");
    const count = 5_000;
    const stored = await Promise.all(
      Array.from({ length: count }, (_, number) =>
        publishOnce(used, `once_all.${number % 3}`, Buffer.from(`${number}`), `id-${number}`),
      ),
    );
    expect(stored).not.toContain(undefined);
    expect((await manager.streams.info("once_all")).state.messages).toBe(count);
    for (const number of [0, 1, 2_500, count - 1]) {
      const message = (await manager.streams.getMessage("once_all", { seq: number + 1 }))!;
      expect(message.string()).toBe(`${number}`);
      expect(message.subject).toBe(`once_all.${number % 3}`);
      expect(message.header.get("Nats-Msg-Id")).toBe(`id-${number}`);
    }
  });

  it("keeps headers and bytes as they are, and an id's message is stored once", async () => {
    await using used = await operationsOf(inject("natsUrl"));
    const manager = await addStream(used, "once_exact");
    const payloads = [new Uint8Array(0), Uint8Array.of(0, 13, 10), bytesOf(900_000)];
    const headers = readHeaders(JSON.parse('{"n": ["1", "ä"], "__proto__": ["p", "q"]}'));
    for (const [number, payload] of [...payloads, ...payloads].entries()) {
      const id = `ä-${number % payloads.length}`;
      expect(await publishOnce(used, "once_exact.a", payload, id, { headers })).toMatchObject({
        stream: "once_exact",
      });
    }
    expect((await manager.streams.info("once_exact")).state.messages).toBe(payloads.length);
    for (const [number, payload] of payloads.entries()) {
      const stored = (await manager.streams.getMessage("once_exact", { seq: number + 1 }))!;
      expect(Buffer.from(stored.data).equals(payload)).toBe(true);
      expect([...stored.header]).toEqual([
        ["n", ["1", "ä"]],
        ["__proto__", ["p", "q"]],
        ["Nats-Msg-Id", [`ä-${number}`]],
      ]);
    }
    expect([...headers!]).toEqual([
      ["n", ["1", "ä"]],
      ["__proto__", ["p", "q"]],
    ]);
  });

  it("says that a message is not acknowledged: no stream, one that refuses it, something else that answers", async () => {
    await using used = await operationsOf(inject("natsUrl"));
    await addStream(used, "once_small", { max_msg_size: 100 });
    used.stock.subscribe("once.other", { callback: (_error, message) => void message.respond("[no ack]") });
    await used.stock.flush();
    const publish = (subject: string) => publishOnce(used, subject, bytesOf(200), "m");
    expect(await Promise.all(["once.none", "once_small.a", "once.other"].map(publish))).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
  });

  it("refuses what the server would end the connection over, and goes on", async () => {
    await using used = await operationsOf(inject("natsUrl"));
    await addStream(used, "once_large");
    const publish = (bytes: number) => publishOnce(used, "once_large.a", bytesOf(bytes), `${bytes}`);
    const small = publish(1);
    await failureOf("payload_too_large", () => publish(2 << 20));
    await failureOf("invalid_argument", () => publishOnce(used, "a b", bytesOf(1), "m"));
    expect([await small, await publish(2)]).toMatchObject([{ seq: 1 }, { seq: 2 }]);
  });

  it("fails if no answer comes in time, and takes the answers to others", async () => {
    await using used = await operationsOf(inject("natsUrl"));
    await addStream(used, "once_lost");
    let arrived = 0;
    interceptArrivals(used, (pass) => {
      if (arrived++ > 0) pass();
    });
    const publish = (id: string) => publishOnce(used, "once_lost.a", bytesOf(1), id, { limitMs: 1_500 });
    const first = failureOf("nats_timeout", () => publish("1"));
    expect(await publish("2")).toMatchObject({ stream: "once_lost" });
    expect((await first).outcome).toBe("unknown");
  });

  it("fails with the connection: what was sent may have arrived, what comes then was not sent", async () => {
    await using server = await startNatsServer({ jetStream: true });
    await using used = await operationsOf(server.url);
    await addStream(used, "s");
    // The answer never comes.
    interceptArrivals(used, () => undefined);
    const publish = () => publishOnce(used, "s.a", bytesOf(1), "m");
    const lost = failureOf("outcome_unknown", publish);
    await used.operations.flush({ timeoutMs });
    await server.kill();
    await lost;
    await failureOf("nats_unavailable", publish);
  });

  it("does not wait for the answers to what the user may not publish", async () => {
    await using server = await startNatsServer({
      jetStream: true,
      config: permissions('publish: { deny: ["s.closed"] }'),
    });
    await using used = await operationsOf(server.url, user, admin);
    await addStream(used, "s");
    const publish = (subject: string) => publishOnce(used, subject, bytesOf(1), subject);
    const closed = publish("s.closed");
    expect(await publish("s.open")).toMatchObject({ seq: 1 });
    expect(await closed).toBeUndefined();
  });

  it("says that nothing is acknowledged to a user who may not receive the replies", async () => {
    await using server = await startNatsServer({
      jetStream: true,
      config: permissions('subscribe: { deny: ["_INBOX.>"] }'),
    });
    await using used = await operationsOf(server.url, user, admin);
    await addStream(used, "s");
    const publish = () => publishOnce(used, "s.a", bytesOf(1), "m");
    expect([await publish(), await publish()]).toEqual([undefined, undefined]);
  });
});
