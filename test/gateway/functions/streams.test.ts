/**
 * Features of JetStream: acks, duplicates, expectations, domains.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { defineServer, type TestGateway, testGateway } from "../../support/gateway.js";
import { startNatsServer, type TestNatsServer } from "../../support/nats-server.js";
import { byPosition, prepareSamples, sampleCalls } from "./every-function.js";
import { Witness } from "./witness.js";

let hub: TestNatsServer;
let gateway: TestGateway;
let witness: Witness;
beforeAll(async () => {
  hub = await startNatsServer({ config: 'jetstream { domain: hub, store_dir: "$DIR/jetstream" }' });
  gateway = await testGateway({ natsUrl: hub.url });
  witness = await Witness.open(gateway.nats, "unused.>", "hub");
  await witness.manager.streams.add({ name: "acks", subjects: ["acks.*"] });
  await witness.manager.streams.add({ name: "full", subjects: ["full"], max_msgs: 1, discard: "new" as never });
});
afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]();
  await hub?.[Symbol.asyncDispose]();
});

const ack = async (call: string) => (await gateway.client.query(`SELECT * FROM ${call}`)).rows;
const stored = async (): Promise<number> => (await witness.manager.streams.info("acks")).state.messages;

describe("a message with a Nats-Msg-Id of its own", () => {
  it("is stored once, and the ack reports the first one", async () => {
    const call = `nats_publish_text_ack('acks.id', 'x', '{"Nats-Msg-Id": "once"}')`;
    const [first] = await ack(call);
    expect(first).toMatchObject({ stream: "acks", duplicate: false });
    expect(await ack(call)).toEqual([{ ...first, duplicate: true }]);
    await gateway.value(`SELECT nats_publish_json_stream('acks.id', '1', '{"Nats-Msg-Id": "once"}')`);
    expect(await stored()).toBe(Number(first!["seq"]));
  });

  it("is refused for a batch of more than one, of which all but the first would be lost", async () => {
    const before = await stored();
    const error = await gateway.errorOf(
      `SELECT nats_publish_text_stream_batch('acks.id', ARRAY['x', 'y'], '{"Nats-Msg-Id": "batch"}')`,
    );
    expect(error).toMatchObject({ code: "22023", message: expect.stringContaining("Nats-Msg-Id") });
    expect(await stored()).toBe(before);
  });
});

describe("messages without one", () => {
  it("are stored each, also if they are the same", async () => {
    const before = await stored();
    await gateway.value("SELECT nats_publish_text_stream('acks.same', 'x') FROM generate_series(1, 10)");
    await gateway.value("SELECT nats_publish_text_stream_batch('acks.same', array_fill('x'::text, '{10}'))");
    expect(await stored()).toBe(before + 20);
    const [last] = await ack("nats_publish_text_ack('acks.same', 'x')");
    expect(last).toEqual({ stream: "acks", seq: `${before + 21}`, duplicate: false });
  });
});

describe("a publish that a stream refuses", () => {
  it("is reported with its text and its code (NA000)", async () => {
    const unexpected = `'{"Nats-Expected-Last-Sequence": "999999"}'`;
    const error = await gateway.errorOf(`SELECT nats_publish_text_stream('acks.expected', 'x', ${unexpected})`);
    expect(error).toMatchObject({ code: "NA000", detail: expect.stringContaining("10071") });
    expect(error.message).toContain("wrong last sequence");
  });

  it("in the middle of a batch is reported with how many are stored", async () => {
    const error = await gateway.errorOf("SELECT nats_publish_text_stream_batch('full', ARRAY['1', '2', '3'])");
    expect(error.code).toBe("NA000");
    expect(error.message).toContain("1 of 3 messages are known to be stored");
  });
});

describe("the domain of a call", () => {
  /** The calls of one round, in places of their own, which have nothing yet. */
  const calls = (word: string, domain: string) =>
    sampleCalls(word)
      .filter(({ given }) => "domain" in given)
      .map((call) => byPosition({ ...call, given: { ...call.given, domain } }));

  it("is that of the server's option if it has none of its own; in one that is nowhere nothing is done", async () => {
    await using other = await testGateway({ natsUrl: hub.url });
    for (const [option, domain, works, word] of [
      ["hub", "NULL", true, "domain_1"],
      ["hub", "'hub'", true, "domain_2"],
      ["hub", "'nowhere'", false, "domain_3"],
      ["nowhere", "NULL", false, "domain_4"],
      ["nowhere", "'hub'", true, "domain_5"],
    ] as const) {
      await defineServer(other.client, hub.url, { domain: option });
      await other.value("SELECT litmus_pgnats_reload_conf()");
      await prepareSamples(witness, word);
      for (const call of calls(word, domain)) {
        const outcome = await other.client.query(call).then(
          () => "done",
          (error: { code: string; message: string }) => `${error.code} ${error.message}`,
        );
        if (works) expect(outcome, call).toBe("done");
        else expect(outcome, call).toMatch(/^NA004 .*"nowhere"/);
      }
      const { state } = await witness.manager.streams.info(`${word}_stream`);
      // Of each type of payload one message, one with its ack, and a batch of three.
      expect(state.messages).toBe(works ? 4 * 5 : 0);
    }
  });
});
