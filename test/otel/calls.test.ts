/**
 * Spans of RPC calls over peers and NATS, and of `serve`: functions, responders, calls from SQL, and the outbox.
 */
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { headers } from "@nats-io/transport-node";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type BridgeWorld, bridgeWorld } from "../bridge/support/bridge-world.js";
import { natsCarrier, peerCarrier, type TestCarrier } from "../connect/carriers.js";
import { Warehouse } from "../connect/generated/acme/warehouse/v1/warehouse_pb.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";
import { recordedSpans } from "./support/recorded-spans.js";

let recorded: ReturnType<typeof recordedSpans>;
beforeAll(() => {
  recorded = recordedSpans({ livePerMillion: 0 });
});
afterAll(() => recorded?.[Symbol.asyncDispose]());
const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  recorded.reset();
  for (const end of ends.splice(0)) await end();
});

const peers = sharedPeerWorld();
const carriers: readonly TestCarrier[] = [peerCarrier(peers), natsCarrier((end) => ends.push(end))];

describe.each(carriers)("a call over $name", (carrier) => {
  it("has a span on both sides, named as its method, with the code of an error", async () => {
    const calling = await carrier.serve((router) =>
      router.rpc(Warehouse.method.reserve, async ({ quantity }) => {
        if (quantity > 1) throw new ConnectError("only one", Code.FailedPrecondition);
        return { reserved: quantity };
      }),
    );
    const client = createClient(Warehouse, calling.transport());
    await client.reserve({ quantity: 1 });
    expect(recorded.spans).toEqual([]);
    const call = (quantity: number) => recorded.inSpan("GET /", () => client.reserve({ quantity }));
    const { id, traceId } = await call(1);
    const name = "acme.warehouse.v1.Warehouse/Reserve";
    const [answered, asked] = await recorded.spansOf(name, name);
    expect([asked, answered]).toMatchObject([
      { kind: "CLIENT", parent: id, traceId, error: undefined },
      { kind: "SERVER", parent: asked!.id, traceId, error: undefined },
    ]);
    expect(asked!.attributes).toMatchObject({
      "rpc.system": "connect_rpc",
      "rpc.service": "acme.warehouse.v1.Warehouse",
      "rpc.method": "Reserve",
    });
    recorded.reset();
    await expect(call(2)).rejects.toThrow("only one");
    const failed = await recorded.spansOf(name, name);
    expect(failed.map(({ attributes }) => attributes["error.type"])).toEqual([
      "failed_precondition",
      "failed_precondition",
    ]);
  });
});

describe("a call over NATS that is as large as the server allows", () => {
  it("is sent without its context", async () => {
    const calling = await natsCarrier((end) => ends.push(end)).serve((router) =>
      router.rpc(Warehouse.method.reserve, async () => ({})),
    );
    const client = createClient(Warehouse, calling.transport());
    const call = (length: number) => client.reserve({ sku: "x".repeat(length) });
    const isSent = (length: number) =>
      call(length).then(
        () => true,
        () => false,
      );
    let length = 1024 * 1024;
    while (!(await isSent(length))) length -= 20;
    // The header with the time limit may have another length.
    await recorded.inSpan("GET /", () => call(length - 20));
    const [asked] = await recorded.spansOf("acme.warehouse.v1.Warehouse/Reserve");
    expect(asked!.error).toBeUndefined();
  });
});

describe("serve", () => {
  let world: BridgeWorld;
  beforeAll(async () => {
    world = await bridgeWorld({
      sql: `
        CREATE TABLE seen (parent text);
        CREATE FUNCTION note(payload bytea) RETURNS void LANGUAGE plpgsql AS $$BEGIN
          INSERT INTO seen VALUES (current_setting('hawser.traceparent', true));
          IF payload = 'fail' THEN RAISE EXCEPTION 'not this one'; END IF; END$$;
        CREATE FUNCTION answer(payload bytea) RETURNS bytea LANGUAGE sql AS $$
          SELECT convert_to(coalesce(current_setting('hawser.traceparent', true), ''), 'UTF8') $$;`,
    });
  });
  afterAll(() => world?.[Symbol.asyncDispose]());

  const traceId = "7".repeat(32);
  const parent = "8".repeat(16);
  const traceparent = `00-${traceId}-${parent}-01`;

  it("has a span for each run of a function, in the trace of its message, which the function continues", async () => {
    const subject = `${world.prefix}.noted`;
    await world.subscribe(subject, "note(bytea)");
    expect(recorded.spans).toEqual([]);
    const client = await world.connect();
    ends.push(() => client.end());
    await client.query("SELECT set_config('hawser.traceparent', $1, false)", [traceparent]);
    await client.query("SELECT hawser.enqueue($1, 'x', false)", [subject]);
    const [sent, run] = await recorded.spansOf(`send ${subject}`, `process ${subject}`);
    expect([sent, run]).toMatchObject([
      { kind: "PRODUCER", traceId, parent, attributes: { "messaging.system": "nats" } },
      {
        kind: "CONSUMER",
        traceId,
        parent,
        attributes: { "messaging.system": "nats", "hawser.function": "public.note(bytea)" },
      },
    ]);
    const noted = await world.value("SELECT parent FROM seen WHERE parent <> ''");
    expect(noted).toBe(`00-${traceId}-${run!.id}-01`);
  });

  it("has the error of a function in its span", async () => {
    const subject = `${world.prefix}.failed`;
    await world.subscribe(subject, "note(bytea)");
    const client = await world.connect();
    ends.push(() => client.end());
    await client.query(`SELECT nats_publish_text($1, 'fail', headers => '{"traceparent": "${traceparent}"}')`, [
      subject,
    ]);
    const [call, run] = await recorded.spansOf("call nats_publish_*", `process ${subject}`);
    expect([call!.traceId, call!.parent]).toEqual([traceId, parent]);
    expect([run!.attributes["error.type"], run!.error]).toEqual(["P0001", "not this one"]);
  });

  it("has a span for a responder's function", async () => {
    const subject = `${world.prefix}.asked`;
    await world.client.query("SELECT litmus_pgnats_register_responder($1, 'answer(bytea)'::regprocedure)", [subject]);
    await world.live(subject);
    const traced = headers();
    traced.set("traceparent", traceparent);
    const answer = await world.nats.request(subject, "", { timeout: 20_000, headers: traced });
    const [run] = await recorded.spansOf(`respond ${subject}`);
    expect(run).toMatchObject({ kind: "SERVER", traceId, parent });
    expect(answer.string()).toBe(`00-${traceId}-${run!.id}-01`);
  });
});
