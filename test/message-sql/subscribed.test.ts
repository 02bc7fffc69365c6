/** Typed messages between TypeScript and SQL, with the real relay and the real bridge. */
import { create, type DescMessage, fromJson, type Message } from "@bufbuild/protobuf";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Peer } from "../../src/jobs-and-peers/peer/index.js";
import { publish, subscribe, typed } from "../../src/nats/client/index.js";
import { eventually } from "../support/eventually.js";
import { type TestGateway, testGateway } from "../support/gateway.js";
import { messageIn } from "../typed/support/compile.js";
import { madeOf } from "./support/made.js";

const prefix = `typedsql${process.pid}`;
const proto = `syntax = "proto3"; package acme.v1;
  import "buf/validate/validate.proto"; import "hawser/v1/topic.proto";
  message Counted {
    option (hawser.v1.topic) = {topic: "${prefix}" subject: "${prefix}.{place}" key: "place"};
    string place = 1 [(buf.validate.field).string.max_len = 10];
    uint64 count = 2;
  }`;

let gateway: TestGateway;
let schema: DescMessage;

beforeAll(async () => {
  const { registry, sql } = await madeOf({ "acme/v1/counted.proto": proto });
  schema = messageIn(registry, "acme.v1.Counted");
  gateway = await testGateway();
  await gateway.client.query(sql);
  await gateway.client.query(`
    CREATE TABLE counted (place text, count numeric);
    CREATE FUNCTION take(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE sql AS $$
      INSERT INTO counted SELECT c.place, c.count FROM messages.read_counted(payload, headers) AS c
    $$;
  `);
  await gateway.client.query("SELECT nats_subscribe($1, 'take')", [`${prefix}.*`]);
  await gateway.client.query("SELECT litmus_pgnats_reload_conf()");
});

afterAll(() => gateway?.[Symbol.asyncDispose]());

it("TypeScript publishes Protobuf and JSON, and a subscribed function gets columns", async () => {
  await publish(gateway.nats, schema, { place: "binary", count: 2n ** 64n - 1n } as never);
  await publish(gateway.nats, schema, { place: "json", count: 7n } as never, { format: "json" });
  const counted = "SELECT place, count FROM counted WHERE place IN ('binary', 'json') ORDER BY place";
  await eventually("the function has both", async () => (await gateway.client.query(counted)).rowCount === 2);
  expect((await gateway.client.query(counted)).rows).toEqual([
    { place: "binary", count: "18446744073709551615" },
    { place: "json", count: "7" },
  ]);
});

it.each([
  [
    "does not decode",
    Buffer.from("0a0561", "hex"),
    "acme.v1.Counted.place: cannot be read: the payload ends within the field",
  ],
  ["breaks a rule", Buffer.from(`0a0b${"61".repeat(11)}`, "hex"), "(string.max_len)"],
])("what %s is a dead letter, with the field and the reason", async (_, payload, reason) => {
  const ids = "SELECT coalesce(max(id), 0) FROM hawser_data.dead_letters";
  const before = await gateway.value(ids);
  gateway.nats.publish(`${prefix}.bad`, payload);
  await eventually("there is a dead letter", async () => (await gateway.value(ids)) !== before);
  const { rows } = await gateway.client.query(
    "SELECT * FROM hawser_data.dead_letters WHERE id > $1 ORDER BY id LIMIT 1",
    [before],
  );
  expect(rows[0]).toMatchObject({ error_code: "22P02" });
  expect(JSON.stringify(rows[0])).toContain(reason);
});

it("SQL publishes, and TypeScript handles, over NATS and at a peer", async () => {
  const got: Message[] = [];
  const failures: unknown[] = [];
  const collecting = typed(schema, (value) => void got.push(value));
  await using _ = await subscribe(gateway.nats, collecting, { onFailure: (error) => failures.push(error) });
  await using peer = new Peer({
    name: `${prefix}-1`,
    topic: prefix,
    listen: "127.0.0.1:0",
    databaseUrl: gateway.database.url,
  });
  await peer.start();
  await peer.handle(schema, (value) => void got.push(value));
  for (const to of ["nats", "peers"]) {
    await gateway.client.query("SELECT messages.publish_counted(place => $1, count => 9, _to => $2)", [to, to]);
  }
  await eventually("both have come", () => got.length === 2);
  const expected = ["nats", "peers"].map((place) => create(schema, fromJson(schema, { place, count: "9" }) as never));
  expect(got.map((each) => ({ ...each }))).toEqual(expect.arrayContaining(expected.map((each) => ({ ...each }))));
  expect(failures).toEqual([]);
});
