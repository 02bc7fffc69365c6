import { jetstreamManager } from "@nats-io/jetstream";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { readHeaders } from "../../../src/nats/connections/headers.js";
import { eventually } from "../../support/eventually.js";
import { startNatsServer } from "../../support/nats-server.js";
import { slowIt } from "../../support/slow-it.js";
import {
  bytesOf,
  failureOf,
  hang,
  interceptArrivals,
  type Operations,
  operationsOf,
  timeoutMs,
} from "./operations-of.js";

async function addStream({ stock }: Operations, name: string, subjects: string[], rest: object = {}) {
  const manager = await jetstreamManager(stock, { timeout: timeoutMs });
  await manager.streams.add({ name, subjects, ...rest });
  return manager;
}

/** On the server of the run. */
let used: Operations;
beforeAll(async () => {
  used = await operationsOf(inject("natsUrl"));
});
afterAll(() => used?.[Symbol.asyncDispose]());

describe.concurrent("streams.publish", () => {
  it("resolves with the position of the message, and a stock client reads it there as it was sent", async () => {
    const manager = await addStream(used, "operations_stream_exact", ["operations.stream.exact.>"]);
    const payloads = [new Uint8Array(0), Uint8Array.of(0, 13, 10), bytesOf(900_000)];
    for (const [index, payload] of payloads.entries()) {
      const headers = readHeaders(JSON.parse(`{"n": ["${index}", "ä"], "__proto__": ["p", "q"]}`));
      const options = { headers, messageId: `exact-${index}`, timeoutMs };
      const ack = await used.operations.streams.publish("operations.stream.exact.a", payload, options);
      expect(ack).toEqual({ stream: "operations_stream_exact", seq: BigInt(index + 1), duplicate: false });
      const stored = (await manager.streams.getMessage("operations_stream_exact", { seq: index + 1 }))!;
      expect(Buffer.from(stored.data).equals(payload)).toBe(true);
      expect([...stored.header]).toEqual([
        ["n", [`${index}`, "ä"]],
        ["__proto__", ["p", "q"]],
        ["Nats-Msg-Id", [`exact-${index}`]],
      ]);
    }
    const options = { headers: undefined, messageId: "no-headers", timeoutMs };
    expect((await used.operations.streams.publish("operations.stream.exact.a", bytesOf(1), options)).seq).toBe(4n);
  });

  it("stores a message with the same id once", async () => {
    const manager = await addStream(used, "operations_stream_twice", ["operations.stream.twice"]);
    const options = { messageId: "the same", timeoutMs };
    const first = await used.operations.streams.publish("operations.stream.twice", bytesOf(1), options);
    const second = await used.operations.streams.publish("operations.stream.twice", bytesOf(1), options);
    expect(second).toEqual({ ...first, duplicate: true });
    expect((await manager.streams.info("operations_stream_twice")).state.messages).toBe(1);
  });

  it("prefers the Nats-Msg-Id of the headers, which are left as they are", async () => {
    await addStream(used, "operations_stream_own", ["operations.stream.own"]);
    const headers = readHeaders({ "Nats-Msg-Id": "mine" });
    const publish = (messageId: string) =>
      used.operations.streams.publish("operations.stream.own", bytesOf(1), { headers, messageId, timeoutMs });
    expect((await publish("one")).duplicate).toBe(false);
    expect((await publish("two")).duplicate).toBe(true);
    const plain = readHeaders({ a: "b" });
    await used.operations.streams.publish("operations.stream.own", bytesOf(1), {
      headers: plain,
      messageId: "x",
      timeoutMs,
    });
    expect([...plain!]).toEqual([["a", ["b"]]]);
  });

  it("sends the message again if the answer got lost, and it is stored once", async () => {
    await using server = await startNatsServer({ jetStream: true });
    await using used = await operationsOf(server.url);
    const manager = await addStream(used, "s", ["lost"]);
    // The first answer to come is thrown away where it arrives.
    let arrived = 0;
    interceptArrivals(used, (pass) => {
      if (arrived++ > 0) pass();
    });
    const ack = await used.operations.streams.publish("lost", bytesOf(1), { messageId: "lost", timeoutMs });
    expect(arrived).toBeGreaterThan(1);
    expect(ack).toEqual({ stream: "s", seq: 1n, duplicate: false });
    expect((await manager.streams.info("s")).state.messages).toBe(1);
  });

  slowIt("does not send it again if the stream forgets repetitions too soon, and says so", async () => {
    await using server = await startNatsServer({ jetStream: true });
    await using used = await operationsOf(server.url);
    const manager = await addStream(used, "s", ["lost"], { duplicate_window: 500_000_000 });
    let arrived = 0;
    interceptArrivals(used, (pass) => {
      if (arrived++ > 0) pass();
    });
    const error = await failureOf("nats_timeout", () =>
      used.operations.streams.publish("lost", bytesOf(1), { messageId: "lost", timeoutMs: 4_500 }),
    );
    expect(error.outcome).toBe("unknown");
    expect(error.detail).toBe(
      'It was not sent again: stream "s" recognizes repetitions for 500 ms only (duplicate_window).',
    );
    expect((await manager.streams.info("s")).state.messages).toBe(1);
  });

  it("waits for the answer to the first publish if it may not look up the stream, and does not publish again", async () => {
    await using server = await startNatsServer({
      jetStream: true,
      config: `authorization { users: [
        { user: admin, password: p }, { user: u, password: p, permissions: { publish: { deny: ["$JS.API.>"] } } }
      ] }`,
    });
    await using used = await operationsOf(server.url, { user: "u", pass: "p" }, { user: "admin", pass: "p" });
    const manager = await addStream(used, "s", ["late"]);
    // The look-up of the stream is refused after the first wait: then the answer may come.
    const refused = (async () => {
      for await (const status of used.connection.status()) if (status.type === "error") return;
    })();
    let passed = 0;
    interceptArrivals(used, (pass) => {
      passed += 1;
      void refused.then(pass);
    });
    const ack = await used.operations.streams.publish("late", bytesOf(1), { messageId: "late", timeoutMs });
    expect(ack).toEqual({ stream: "s", seq: 1n, duplicate: false });
    expect(passed).toBe(1);
    expect((await manager.streams.info("s")).state.messages).toBe(1);
  });

  it("finds that no stream takes the subject also if others subscribe to it", async () => {
    used.stock.subscribe("operations.stream.heard", { callback: () => undefined });
    await used.stock.flush();
    await failureOf("no_stream", () =>
      used.operations.streams.publish("operations.stream.heard", bytesOf(1), { messageId: "m", timeoutMs }),
    );
  });

  it("is nats_failed if something else answers", async () => {
    used.stock.subscribe("operations.stream.other", {
      callback: (_error, message) => void message.respond("[no ack]"),
    });
    await used.stock.flush();
    const error = await failureOf("nats_failed", () =>
      used.operations.streams.publish("operations.stream.other", bytesOf(1), { messageId: "m", timeoutMs }),
    );
    expect(error.message).toContain("something other than a stream");
  });

  it("takes the acknowledgement of the domain that was named, and reports another one", async () => {
    await using hub = await startNatsServer({
      jetStream: true,
      config: 'server_name: hub\njetstream { domain: hub }\nleafnodes { listen: "127.0.0.1:-1" }',
    });
    const port = /leafnode connections on 127\.0\.0\.1:(\d+)/.exec(hub.log())![1];
    await using leaf = await startNatsServer({
      jetStream: true,
      config: `server_name: leaf\njetstream { domain: leaf }\nleafnodes { remotes: [{ url: "nats-leaf://127.0.0.1:${port}" }] }`,
    });
    await using onLeaf = await operationsOf(leaf.url);
    await using onHub = await operationsOf(hub.url);
    await addStream(onLeaf, "near", ["both", "near"]);
    await addStream(onHub, "far", ["both"]);
    await eventually("what is published at the leaf reaches both streams", async () => {
      const answers = await onLeaf.stock.requestMany("both", "", { strategy: "timer", maxWait: 500 });
      let acknowledged = 0;
      for await (const _ of answers) acknowledged += 1;
      return acknowledged === 2;
    });
    const publish = (subject: string, domain: string, ms: number) =>
      onLeaf.operations.streams.publish(subject, bytesOf(1), {
        domain,
        messageId: `${subject}-${domain}`,
        timeoutMs: ms,
      });
    for (let round = 0; round < 5; round++) {
      expect((await publish("both", "hub", timeoutMs)).stream).toBe("far");
      expect((await publish("both", "leaf", timeoutMs)).stream).toBe("near");
    }
    const error = await failureOf("no_stream", () => publish("near", "hub", 3_000));
    expect(error.detail).toContain('Stream "near" of domain "leaf" has stored the message as number');
    expect(error.outcome).toBe("unknown");
  });

  it("counts the id as a part of the message for max_payload, and needs headers", async () => {
    await using limited = await startNatsServer({ config: "max_payload: 1000" });
    await using used = await operationsOf(limited.url);
    await failureOf("payload_too_large", () =>
      used.operations.streams.publish("a", bytesOf(990), { messageId: "m", timeoutMs }),
    );
    await using without = await startNatsServer({ config: "no_header_support: true" });
    await using old = await operationsOf(without.url);
    await failureOf("not_supported", () =>
      old.operations.streams.publish("a", bytesOf(1), { messageId: "m", timeoutMs }),
    );
  });

  it("ends by its deadline if the server hangs, and when it dies", async () => {
    await using server = await startNatsServer({ jetStream: true });
    await using used = await operationsOf(server.url, { pingInterval: 60_000 });
    await addStream(used, "s", ["s"]);
    await hang(server, used);
    const timedOut = await failureOf("nats_timeout", () =>
      used.operations.streams.publish("s", bytesOf(1), { messageId: "1", timeoutMs: 150 }),
    );
    expect(timedOut.outcome).toBe("unknown");
    const lost = failureOf("outcome_unknown", () =>
      used.operations.streams.publish("s", bytesOf(1), { messageId: "2", timeoutMs: 60_000 }),
    );
    await server.kill();
    await lost;
  });
});

describe.concurrent("streams.publishBatch", () => {
  it("does not succeed if its time was over before it could send anything", async () => {
    await addStream(used, "operations_stream_late", ["operations.stream.late"]);
    for (let time = 0; time < 20; time++) {
      const options = { messageId: `late-${time}`, timeoutMs: 0 };
      await expect(
        used.operations.streams.publishBatch("operations.stream.late", [bytesOf(1), bytesOf(1)], options),
      ).rejects.toMatchObject({ code: "nats_timeout", outcome: "unknown" });
    }
  });

  it("stores all messages in order", async () => {
    const manager = await addStream(used, "operations_stream_batch", ["operations.stream.batch"]);
    const payloads = Array.from({ length: 2_000 }, (_, index) => Buffer.from(`${index}`));
    const headers = readHeaders({ a: "b" });
    const publish = () =>
      used.operations.streams.publishBatch("operations.stream.batch", payloads, {
        headers,
        messageId: "batch",
        timeoutMs,
      });
    const acks = await publish();
    expect(acks.map(({ seq }) => Number(seq))).toEqual(payloads.map((_, index) => index + 1));
    for (const seq of [1, 1_000, 2_000]) {
      const stored = (await manager.streams.getMessage("operations_stream_batch", { seq }))!;
      expect(stored.string()).toBe(`${seq - 1}`);
      expect(stored.header.get("Nats-Msg-Id")).toBe(`batch-${seq - 1}`);
      expect(stored.header.get("a")).toBe("b");
    }
    expect((await publish()).every(({ duplicate }) => duplicate)).toBe(true);
    expect((await manager.streams.info("operations_stream_batch")).state.messages).toBe(2_000);
  });

  it("says how many were stored when it fails", async () => {
    const limits = { max_msgs: 7, discard: "new" };
    const manager = await addStream(used, "operations_stream_full", ["operations.stream.full"], limits);
    const payloads = Array.from({ length: 1_000 }, () => bytesOf(1));
    const error = await failureOf("nats_failed", () =>
      used.operations.streams.publishBatch("operations.stream.full", payloads, { messageId: "full", timeoutMs }),
    );
    expect(error.message).toContain("maximum messages exceeded");
    expect(error.message).toContain("7 of 1000 messages are known to be stored");
    expect(error.outcome).toBe("unknown");
    expect((await manager.streams.info("operations_stream_full")).state.messages).toBe(7);
  });

  it("sends nothing of a batch with a message that is too large, or without a stream", async () => {
    const manager = await addStream(used, "operations_stream_large", ["operations.stream.large"]);
    const payloads = [bytesOf(1), bytesOf(used.connection.info!.max_payload)];
    const options = { messageId: "m", timeoutMs };
    await failureOf("payload_too_large", () =>
      used.operations.streams.publishBatch("operations.stream.large", payloads, options),
    );
    expect((await manager.streams.info("operations_stream_large")).state.messages).toBe(0);
    const error = await failureOf("no_stream", () =>
      used.operations.streams.publishBatch("operations.stream.none", [bytesOf(1), bytesOf(1)], options),
    );
    expect(error.message).toContain("0 of 2");
    expect(await used.operations.streams.publishBatch("operations.stream.large", [], options)).toEqual([]);
  });

  it("ends when the server dies", async () => {
    await using server = await startNatsServer({ jetStream: true });
    await using used = await operationsOf(server.url);
    await addStream(used, "s", ["s"]);
    const payloads = Array.from({ length: 5_000 }, () => bytesOf(100));
    const failure = failureOf("outcome_unknown", () =>
      used.operations.streams.publishBatch("s", payloads, { messageId: "m", timeoutMs: 60_000 }),
    );
    await hang(server, used);
    await server.kill();
    expect((await failure).message).toMatch(/\d+ of 5000 messages are known to be stored/);
  });
});
