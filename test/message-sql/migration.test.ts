/**
 * Generated migrations: they may run again, bring older databases up to date, and take nothing of others for their own.
 * The functions have the rights of their owner and are for the roles that are named.
 */
import { create, toBinary } from "@bufbuild/protobuf";
import pg from "pg";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { generateMessageSql } from "../../codegen/message-sql/generate.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { messageIn } from "../typed/support/compile.js";
import { type Made, madeOf, sqlOf } from "./support/made.js";
import { orderProto as proto, refusal } from "./support/orders.js";

const older = proto("int32 amount = 3; repeated Item items = 5; message Item { string sku = 1; }");
/** The newer one without the fields that the older one lacks. */
const shortened = proto(
  "int64 amount = 3; repeated Item items = 5; message Item { string sku = 1; uint32 count = 2; }",
);
const newer = proto(
  "int64 amount = 3; bool express = 4; repeated Item items = 5; message Item { string sku = 1; uint32 count = 2; }",
);

let database: TestDatabase;
let client: pg.Client;
let made: Made;
let next: Made;
let less: Made;

beforeAll(async () => {
  [made, next, less] = await Promise.all([madeOf(older), madeOf(newer), madeOf(shortened)]);
});

beforeEach(async () => {
  database = await testDatabase();
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
  return async () => {
    await client.end();
    await database.drop();
  };
});

describe("a published message", () => {
  beforeEach(() => client.query(made.sql).then(() => undefined));

  it("goes into the outbox for NATS, with subject, key, headers and the bytes of Protobuf", async () => {
    await client.query(
      `SELECT messages.publish_order_placed(tenant => 'north', order_id => '17', amount => 5, items => ARRAY[ROW('rope')]::messages.order_placed_item[],
         _message_id => 'm-1', _headers => '{"trace": "t"}', _to => 'nats')`,
    );
    const { rows } = await client.query("SELECT * FROM hawser_data.outbox");
    const schema = messageIn(made.registry, "acme.v1.OrderPlaced");
    const expected = create(schema, { tenant: "north", orderId: "17", amount: 5, items: [{ sku: "rope" }] } as never);
    expect(rows).toMatchObject([
      {
        destination: "orders.north.placed",
        key: "17",
        message_id: "m-1",
        to_stream: true,
        headers: { "content-type": "application/x-protobuf; type=acme.v1.OrderPlaced", trace: "t" },
        payload: Buffer.from(toBinary(schema, expected)),
      },
    ]);
  });

  it("goes to peers, at once or later", async () => {
    await client.query("SELECT messages.publish_order_placed(tenant => 'north', _key => 'k', _to => 'peers')");
    await client.query("SELECT messages.publish_pinged(7)");
    await client.query("SELECT messages.publish_pinged(8, _deliver_at => now() + interval '1 day')");
    const { rows } = await client.query(
      "SELECT topic, key, headers FROM hawser_data.queue WHERE later IS NULL ORDER BY id",
    );
    expect(rows).toMatchObject([
      { topic: "orders", key: "k" },
      { topic: "pings", key: null },
    ]);
    const type = (name: string): string[] => ["content-type", `application/x-protobuf; type=acme.v1.${name}`];
    expect(rows[0].headers).toContainEqual(type("OrderPlaced"));
    expect(rows[1].headers).toEqual([type("Pinged"), ["message-id", "acme.v1.Pinged:7"]]);
    expect(
      await rowsOf(database.url, "SELECT topic AS destination FROM hawser_data.queue WHERE later IS NOT NULL"),
    ).toEqual([{ destination: "pings" }]);
  });

  it("has the type and the field in its id, in no more bytes than an id may have", async () => {
    const longest = "o".repeat(255 - "acme.v1.Shipped:".length);
    await client.query("SELECT messages.publish_shipped($1)", [longest]);
    await client.query("SELECT messages.publish_shipped('', _message_id => 'mine')");
    expect(await refusal(client.query("SELECT messages.publish_shipped($1)", [`${longest}o`]))).toMatch(
      /^22P02: acme\.v1\.Shipped\.order_id: follows the name of the type in the message's id: it must have 1 to 239 bytes/,
    );
    expect(await rowsOf(database.url, "SELECT message_id FROM hawser_data.outbox ORDER BY id")).toEqual([
      { message_id: `acme.v1.Shipped:${longest}` },
      { message_id: "mine" },
    ]);
  });

  it("is refused with the field and the rule", async () => {
    const refused: readonly [given: string, says: RegExp][] = [
      [
        "tenant => repeat('x', 21), _to => 'nats'",
        /^22P02: acme\.v1\.OrderPlaced\.tenant: must have at most 20 characters, and is "x+" \(string\.max_len\)/,
      ],
      [
        "tenant => 'a.b', _key => 'k', _to => 'nats'",
        /^22P02: acme\.v1\.OrderPlaced\.tenant: goes into the subject and must be one token: .* "a\.b"/,
      ],
      [
        "_key => 'k', _to => 'nats'",
        /^22P02: acme\.v1\.OrderPlaced\.tenant: goes into the subject and must be one token: .* ""/,
      ],
      [
        "tenant => 'a', _to => 'nats'",
        /^22P02: acme\.v1\.OrderPlaced\.order_id: is the key: it must have 1 to 1024 bytes.*; it is ""/,
      ],
      [
        "tenant => 'a', _key => 'k'",
        /^22023: acme\.v1\.OrderPlaced goes to NATS and to peers: _to must be 'nats' or 'peers'/,
      ],
      [
        "tenant => 'a', _key => 'k', items => ARRAY[NULL]::messages.order_placed_item[], _to => 'nats'",
        /^22P02: acme\.v1\.OrderPlaced\.items: must have no element that is NULL/,
      ],
      [
        `tenant => 'a', _key => 'k', _headers => '{"Content-Type": "text/plain"}', _to => 'nats'`,
        /^22023: _headers: content-type is set by the function; leave it out/,
      ],
      ["tenant => 'a', _key => 'k', _headers => '7', _to => 'nats'", /^22023: headers must be a JSON object/],
      [
        `tenant => 'a', _key => 'k', _headers => '{"nats-Rollup": "all"}', _to => 'nats'`,
        /^22023: _headers: names that begin with Nats- are for the NATS server/,
      ],
    ];
    for (const [given, says] of refused) {
      expect.soft(await refusal(client.query(`SELECT messages.publish_order_placed(${given})`))).toMatch(says);
    }
    expect(await rowsOf(database.url, "SELECT FROM hawser_data.outbox")).toEqual([]);
  });
});

it("is never sent to a subject of NATS itself, whatever stands in the first word", async () => {
  await client.query(made.sql);
  expect(await refusal(client.query("SELECT messages.publish_moved('$KV', 'shop')"))).toMatch(
    /^22P02: acme\.v1\.Moved\.area: is the first token of the subject and must not begin with '\$': .* it is "\$KV"/,
  );
  await client.query("SELECT messages.publish_moved('north', '$shop')");
  expect(await rowsOf(database.url, "SELECT destination FROM hawser_data.outbox")).toEqual([
    { destination: "north.$shop.moved" },
  ]);
});

it("takes names and texts of the user that stand in its own functions, too", async () => {
  const odd = proto(
    `repeated Euler select = 3; map<int32, string> by_number = 4;
     string v_payload = 5 [(buf.validate.field).string.const = "$function$"];
     message Euler { string e = 1; string value = 2; }`,
  );
  await client.query((await madeOf(odd)).sql);
  const order = `tenant => 'a', order_id => '1', v_payload => '$function$', _to => 'peers'`;
  await client.query(
    `SELECT messages.publish_order_placed(${order}, "select" => ARRAY[ROW('x', 'y')]::messages.order_placed_euler[])`,
  );
  const [{ read }] = (await rowsOf(
    database.url,
    `SELECT to_jsonb(messages.read_order_placed(payload)) AS read FROM hawser_data.queue`,
  )) as [{ read: object }];
  expect(read).toMatchObject({ select: [{ e: "x", value: "y" }], v_payload: "$function$" });
  const twice = "ARRAY[ROW(NULL, 'x'), ROW(0, 'y')]::messages.order_placed_by_number[]";
  expect(await refusal(client.query(`SELECT messages.publish_order_placed(${order}, by_number => ${twice})`))).toMatch(
    /^22P02: acme\.v1\.OrderPlaced\.by_number: must have each key once/,
  );
});

describe("a migration", () => {
  it("may be run again", async () => {
    await client.query(made.sql);
    const before = await objects();
    await client.query(made.sql);
    expect(await objects()).toEqual(before);
    expect((await client.query("SHOW search_path")).rows[0].search_path).toBe('"$user", public');
  });

  it("adds a field to the type, to the function, and to what stored rows have", async () => {
    await client.query(made.sql);
    await client.query("CREATE TABLE stored (one messages.order_placed_item, at int)");
    await client.query("INSERT INTO stored VALUES (ROW('rope'), 1)");
    const session = new pg.Client({ connectionString: database.url });
    await session.connect();
    try {
      // The session has the plans of what was there before.
      await session.query(
        "SELECT messages.publish_order_placed(tenant => 'a', order_id => '1', amount => 1, _to => 'nats')",
      );
      await client.query(next.sql);
      await session.query(
        `SELECT messages.publish_order_placed(tenant => 'a', order_id => '2', amount => 5000000000, express => true,
           items => ARRAY[ROW('rope', 4)]::messages.order_placed_item[], _to => 'nats')`,
      );
      const { rows } = await session.query(
        "SELECT r.*, (r.items)[1].count FROM hawser_data.outbox AS o, messages.read_order_placed(o.payload) AS r ORDER BY o.id",
      );
      expect(rows).toMatchObject([
        { tenant: "a", amount: "1", express: false },
        { tenant: "a", amount: "5000000000", express: true, count: "4" },
      ]);
    } finally {
      await session.end();
    }
    expect((await client.query("SELECT (one).sku, (one).count FROM stored")).rows).toEqual([
      { sku: "rope", count: null },
    ]);
    const functions = await client.query("SELECT FROM pg_proc WHERE proname = 'publish_order_placed'");
    expect(functions.rowCount).toBe(1);
  });

  it("keeps the attribute of a field that is gone", async () => {
    await client.query(next.sql);
    await client.query(less.sql);
    const { rows } = await client.query("SELECT (messages.read_order_placed('\\x0a0161')).*");
    expect(rows[0]).toMatchObject({ tenant: "a", express: null });
  });

  it("is refused, and changes nothing, where a table would have to be rewritten", async () => {
    await client.query(made.sql);
    await client.query("CREATE TABLE stored (one messages.order_placed)");
    const before = await objects();
    expect(await refusal(client.query(next.sql))).toMatch(
      /^0A000: cannot alter type .* because column "stored\.one" uses it/,
    );
    expect(await objects()).toEqual(before);
  });

  it("takes a table's row for no type of its own", async () => {
    await client.query("CREATE SCHEMA messages CREATE TABLE pinged (number int)");
    expect(await refusal(client.query(made.sql))).toBe(
      "42710: messages.pinged is no composite type | Give the plugin the option schema or prefix.",
    );
  });

  it("takes no type for its own that another message has, or that is the user's", async () => {
    await client.query(made.sql);
    const other = made.sql.replaceAll("acme.v1.Ticked", "acme.v2.Ticked");
    expect(await refusal(client.query(other))).toBe(
      `42710: the type messages.ticked is another one: "A acme.v2.Ticked. Made by protoc-gen-hawser-sql." is to be made here | Give the plugin the option schema or prefix.`,
    );
    await client.query("COMMENT ON TYPE messages.ticked IS NULL");
    expect(await refusal(client.query(made.sql))).toMatch(/^42710: the type messages\.ticked is another one/);
  });

  it("is one for each directory of protos, each complete, or one for all", async () => {
    const shared = `syntax = "proto3"; package acme.common.v1; message Money { int64 cents = 1; }`;
    const user = (
      name: string,
    ): string => `syntax = "proto3"; package acme.${name}.v1; import "acme/common/v1/money.proto";
      import "hawser/v1/topic.proto";
      message ${name}ed { option (hawser.v1.topic) = {topic: "${name}"}; acme.common.v1.Money price = 1; }`;
    const { registry } = await madeOf({
      "acme/common/v1/money.proto": shared,
      "acme/pack/v1/pack.proto": user("pack"),
      "acme/ship/v1/ship.proto": user("ship"),
    });
    const files = [...registry.files].filter((file) => file.name.startsWith("acme/"));
    const both = generateMessageSql(registry, files, "");
    expect(both.map(({ path }) => path).sort()).toEqual(["acme/pack/v1/messages.sql", "acme/ship/v1/messages.sql"]);
    for (const { content } of both) await client.query(content);
    await client.query("SELECT messages.publish_shiped(price => ROW(5)), messages.publish_packed(price => ROW(6))");
    expect(generateMessageSql(registry, files, "file=all.sql").map(({ path }) => path)).toEqual(["all.sql"]);
  });

  it("names other schemas and roles as they are", async () => {
    const sql = sqlOf(made.registry, "schema=Odd-one,prefix=acme_");
    await client.query(sql);
    await client.query(`SELECT "Odd-one".publish_acme_pinged(number => 9)`);
    expect(await rowsOf(database.url, "SELECT topic FROM hawser_data.queue")).toEqual([{ topic: "pings" }]);
  });
});

describe("rights", () => {
  /** Roles belong to the whole server: they are named after the database. */
  const role = (name: string): string => `${database.name}_${name}`;
  const as = (name: string): string =>
    Object.assign(new URL(database.url), { username: role(name), password: "x" }).href;

  beforeEach(async () => {
    for (const name of ["deploy", "shop", "mallory"]) {
      await onServer(database.url, `CREATE ROLE ${role(name)} LOGIN PASSWORD 'x'`);
    }
    await onServer(
      database.url,
      `GRANT hawser_nats, hawser_peer TO ${role("deploy")}`,
      `GRANT CREATE ON DATABASE ${database.name} TO ${role("deploy")}`,
    );
    const names = ["deploy", "shop", "mallory"].map(role).join(", ");
    return () => onServer(database.url, `DROP OWNED BY ${names}`, `DROP ROLE ${names}`);
  });

  const sqlFor = (options = ""): string => sqlOf(made.registry, `role=${role("shop")}${options}`);

  it("let a role publish and read these messages, and nothing else", async () => {
    await onServer(as("deploy"), sqlFor());
    const [row] = await rowsOf(as("shop"), "SELECT messages.publish_ticked(late => true) AS id");
    expect(row).toMatchObject({ id: expect.any(String) });
    expect(await rowsOf(as("shop"), "SELECT (messages.read_ticked('\\x0801')).*")).toEqual([{ late: true }]);
    expect(await refusal(onServer(as("shop"), "SELECT hawser.enqueue('a', ''::bytea, stream => false)"))).toMatch(
      /^42501/,
    );
    expect(await refusal(onServer(as("shop"), "SELECT hawser.enqueue('a', 'b'::bytea)"))).toMatch(/^42501/);
  });

  it("are not those of other roles", async () => {
    await onServer(as("deploy"), sqlFor());
    await onServer(as("deploy"), `GRANT USAGE ON SCHEMA messages TO ${role("mallory")}`);
    const { rows } = await client.query(
      `SELECT p.oid::regprocedure::text AS name FROM pg_proc AS p
        WHERE pronamespace = 'messages'::regnamespace AND has_function_privilege($1, p.oid, 'EXECUTE')`,
      [role("mallory")],
    );
    expect(rows).toEqual([]);
    expect(await refusal(onServer(as("mallory"), "SELECT messages.publish_ticked()"))).toMatch(/^42501/);
  });

  it("are missing, which is said before anything is made", async () => {
    await onServer(database.url, `REVOKE hawser_nats FROM ${role("deploy")}`);
    expect(await refusal(onServer(as("deploy"), sqlFor()))).toMatch(
      /^42501: the role \S+_deploy may not call hawser\.enqueue\(text, bytea, boolean, .* \| GRANT hawser_nats TO \S+_deploy/,
    );
    expect(await rowsOf(database.url, "SELECT to_regnamespace('messages') AS found")).toEqual([{ found: null }]);
  });

  it("of a database without Hawser are not there either", async () => {
    await using empty = await testDatabase({ migrated: false });
    expect(await refusal(onServer(empty.url, made.sql))).toMatch(
      /^42883: the function .* is missing \| Run "hawser init" first/,
    );
  });

  it.each([
    ["function", "FUNCTION messages.read_ticked(bytea) RETURNS text LANGUAGE sql AS 'SELECT 1'"],
    ["function", "FUNCTION messages.hawser_varint(bigint) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea'"],
    ["type", "TYPE messages.ticked AS (late boolean)"],
  ])("are not given to a %s that another role has planted: %s", async (what, object) => {
    await onServer(as("deploy"), `CREATE SCHEMA messages`, `GRANT ALL ON SCHEMA messages TO ${role("mallory")}`);
    await onServer(as("mallory"), `CREATE ${object}`);
    for (const who of [as("deploy"), database.url]) {
      expect(await refusal(onServer(who, sqlFor()))).toMatch(
        new RegExp(
          `^55000: the ${what} messages\\.\\S+ belongs to \\S+_mallory, and not to .* \\| Run this as that role`,
        ),
      );
    }
  });

  it("do not depend on the search_path of who calls, nor on how strings are read there", async () => {
    await onServer(
      as("mallory"),
      // Nothing of it is ever called: it would fail.
      `SET search_path = pg_temp`,
    );
    await onServer(database.url, `CREATE SCHEMA planted`, `GRANT ALL ON SCHEMA planted TO ${role("mallory")}`);
    await onServer(
      as("mallory"),
      ...["octet_length(bytea)", "get_byte(bytea, integer)", "get_byte(bytea, bigint)"].map(
        (signature) =>
          `CREATE FUNCTION planted.${signature} RETURNS integer LANGUAGE plpgsql AS 'BEGIN RAISE ''planted''; END'`,
      ),
      `CREATE FUNCTION planted.trap(bytea, bytea) RETURNS bytea LANGUAGE plpgsql AS 'BEGIN RAISE ''planted''; END'`,
      `CREATE OPERATOR planted.|| (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = planted.trap)`,
      `GRANT USAGE ON SCHEMA planted TO PUBLIC`,
    );
    const settings = "SET search_path = planted, pg_catalog; SET standard_conforming_strings = off";
    for (const statement of [
      sqlFor(),
      "SELECT messages.publish_order_placed(tenant => 'a', order_id => '1', _to => 'nats')",
      "SELECT messages.read_order_placed(E'\\\\x0a0161')",
    ]) {
      const session = new pg.Client({ connectionString: as("deploy") });
      await session.connect();
      await session.query(settings);
      await session.query(statement);
      expect((await session.query("SHOW search_path")).rows[0].search_path).toBe("planted, pg_catalog");
      await session.end();
    }
  });

  it("stand in every function: a pinned search_path, and nothing for PUBLIC", async () => {
    await onServer(as("deploy"), sqlFor());
    const { rows } = await client.query(
      `SELECT proname FROM pg_proc WHERE pronamespace = 'messages'::regnamespace
          AND (proconfig IS DISTINCT FROM ARRAY['search_path=pg_catalog, pg_temp'] OR prosecdef <> (proname LIKE 'publish\\_%'))`,
    );
    expect(rows).toEqual([]);
  });
});

/** Everything in the schema, with its definition. */
async function objects(): Promise<unknown[]> {
  const { rows } = await client.query(
    `SELECT p.oid::int8, pg_get_functiondef(p.oid), p.proacl::text, obj_description(p.oid) FROM pg_proc AS p
      WHERE pronamespace = to_regnamespace('messages') UNION ALL
     SELECT a.attrelid::int8, a.attname, format_type(a.atttypid, a.atttypmod), NULL FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
      WHERE c.relnamespace = to_regnamespace('messages') ORDER BY 1, 2`,
  );
  return rows;
}
