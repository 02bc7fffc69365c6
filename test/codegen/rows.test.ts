/**
 * The generated row types' companions: names of tables and columns, and the client of the SQL functions.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { columns, type QueryClient, storeFunctions, tables } from "../../generated/ts/rows/peer.js";
import { peerSchemaSql } from "../../generated/ts/sql/peer-schema.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { shop } from "./support/shop.js";

describe("names", () => {
  let database: TestDatabase;
  let client: pg.Client;

  beforeAll(async () => {
    database = await testDatabase({ migrated: false });
    client = new pg.Client({ connectionString: database.url });
    await client.connect();
    await client.query(peerSchemaSql);
  });

  afterAll(async () => {
    await client.end();
    await database.drop();
  });

  it.each(Object.entries(tables))("of %s are those of the table, in its order", async (name, table) => {
    const { rows } = await client.query(
      "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 ORDER BY attnum",
      [table],
    );
    expect(columns[name as keyof typeof columns]).toEqual(rows.map(({ attname }) => attname));
  });

  it("are all the tables there are", async () => {
    const { rows } = await client.query("SELECT tablename FROM pg_tables WHERE schemaname = 'hawser_data' ORDER BY 1");
    expect(Object.values(tables).sort()).toEqual(rows.map(({ tablename }) => `hawser_data.${tablename}`));
  });

  it("of functions are known to Postgres, which takes their calls", async () => {
    const { ownName, raiseFence, openChannel, idOfTopic, storeMessages } = storeFunctions(client);
    const { epoch } = await ownName({ name: "sender", token: "made up", life: 1n });
    if (epoch === null) return expect.unreachable("the name is free");
    expect(epoch).toBeTypeOf("bigint");
    expect(await raiseFence({ name: "sender", epoch })).toEqual({ held: true });
    const { channelId: key } = await openChannel({ senderName: "sender", sourceTopic: "s", listenerName: "l" });
    const { id: topicId } = await idOfTopic({ topic: "t" });
    const stored = await storeMessages({
      name: "sender",
      epoch,
      channelId: key,
      firstNumber: 1n,
      topicIds: [topicId, topicId],
      lengths: [1, 2],
      codecs: [0, 0],
      headers: null,
      payloads: new Uint8Array([0, 1, 2, 3]).subarray(1),
    });
    expect(stored).toEqual({ held: true, inserted: 2 });
    const { rows } = await client.query("SELECT payload FROM hawser_data.stored_messages ORDER BY number");
    expect(rows.map(({ payload }) => [...payload])).toEqual([[1, 2, 3]]);
  });
});

describe("calls", () => {
  const calls: Parameters<QueryClient["query"]>[0][] = [];
  const orderFunctions = async (client: QueryClient) => (await shop()).rows["orderFunctions"](client);
  const answering = (...rows: unknown[]): QueryClient => ({
    query: async (config) => {
      calls.push(config);
      return { rows };
    },
  });

  it("are named statements with typed places; bigint goes as text, bytes as Buffer without a copy", async () => {
    const whole = new Uint8Array([1, 2, 3]);
    const { placeOrder } = await orderFunctions(answering({ number: 1, reference: "9007199254740993" }));
    const result = await placeOrder({
      shop: "s",
      total: 2n ** 60n,
      references: [1n, 2n],
      digest: null,
      pictures: [whole.subarray(1)],
      note: '{"a":1}',
    });
    expect(result).toEqual({ number: 1, reference: 9007199254740993n });
    const call = calls.at(-1)!;
    expect(call.name).toBe("hawser.place_order");
    expect(call.text).toBe(
      "SELECT number, reference FROM hawser.place_order($1::text, $2::bigint, $3::bigint[], $4::bytea, $5::bytea[], $6::text::jsonb)",
    );
    expect(call.values).toEqual(["s", "1152921504606846976", ["1", "2"], null, [Buffer.of(2, 3)], '{"a":1}']);
    const [picture] = call.values[4] as [Buffer];
    expect(picture.buffer).toBe(whole.buffer);
  });

  it("give all rows of a function that returns a set, and keep NULL", async () => {
    const { openOrders } = await orderFunctions(
      answering(
        { shop: "a", reference: null, all_references: [] },
        { shop: "b", reference: 5n, all_references: ["1", 2n] },
      ),
    );
    expect(await openOrders()).toEqual([
      { shop: "a", reference: null, allReferences: [] },
      { shop: "b", reference: 5n, allReferences: [1n, 2n] },
    ]);
  });

  it("say which function gave no row", async () => {
    const { placeOrder } = await orderFunctions(answering());
    const call = placeOrder({ shop: "s", total: 1n, references: [], digest: null, pictures: [], note: null });
    await expect(call).rejects.toThrow(
      "hawser.place_order returned no row; is the function in the database the one of this version?",
    );
  });
});
