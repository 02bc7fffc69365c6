/**
 * Everything that the documentation of the extension shows in SQL, run as it is written there; and what it did, as a client
 * of NATS sees it that knows nothing of ours.
 *
 * Its addresses and files are not ours: host, port and the directories of files are rewritten, and the seed that it only
 * hints at ('SUABC...'); nothing else.
 */
import { jetstream } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { Objm } from "@nats-io/obj";
import { connect } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Witness } from "../gateway/functions/witness.js";
import { eventually } from "../support/eventually.js";
import { type TestGateway, testGateway } from "../support/gateway.js";
import { startNatsServer } from "../support/nats-server.js";
import { type Hub, startHub } from "./seed-sql/hub.js";
import { startRelay } from "./seed-sql/relay.js";
import { blocks, extensionStatement, isElsewhere, statementsOf, withOptions } from "./seed-sql/statements.js";

type Rows = readonly Record<string, unknown>[];
/** Looks at what a statement returned, and at what it did. */
type Effect = (rows: Rows) => unknown;

let hub: Hub;
let gateway: TestGateway;
/** Sees the messages of the documentation's subjects, and what is in the domain `hub`. */
let witness: Witness;

beforeAll(async () => {
  hub = await startHub();
  gateway = await testGateway({ serverOptions: false, secretsDirectories: [hub.secretsDirectory] });
  witness = await Witness.open(hub.stock, "*.ject", "hub");
});
afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]();
  await hub?.[Symbol.asyncDispose]();
});

/** Runs the statements of a block that exist already, one after the other, and looks at the effect of each. */
async function runBlock(block: string, effects: readonly Effect[]): Promise<void> {
  const statements = statementsOf(block).filter((statement) => !isElsewhere(statement));
  expect(effects.length, `the effects of ${block}`).toBe(statements.length);
  for (const [index, statement] of statements.entries()) {
    const outcome = await gateway.client.query(statement).then(
      ({ rows }) => rows,
      (error: unknown) => [{ error }],
    );
    try {
      await effects[index]!(outcome);
    } catch (error) {
      throw new Error(`${statement}\n${error instanceof Error ? error.message : error}`, { cause: error });
    }
  }
}

/** Statements that must fail, and their errors. */
const failing =
  (code: string, message: RegExp): Effect =>
  (rows) => {
    expect(rows[0]?.["error"]).toMatchObject({ code, message: expect.stringMatching(message) });
  };

const returning =
  (value: unknown): Effect =>
  (rows) => {
    expect(rows.map((row) => Object.values(row)[0])).toEqual([value]);
  };

const nothing = returning("");

/** The server of the second block as it can be: without one of the two options that exclude each other. */
function externalServer(without: "tls_insecure" | "tls_ca_path"): string {
  return withOptions(statementsOf("03-external-server.sql")[0]!, { ...hub.options, [without]: undefined });
}

describe("a statement that is not run here", () => {
  it("is the extension, which another file creates", () => {
    const kept = blocks.flatMap((block) => statementsOf(block).filter(isElsewhere));
    expect(kept.every((statement) => statement.includes(extensionStatement))).toBe(true);
    expect(kept).toHaveLength(2);
    expect(blocks.flatMap(statementsOf).length).toBe(57);
  });
});

// Each block works on what those before it have made.
describe("the documentation's SQL, block by block", { shuffle: false }, () => {
  it("02: an access token as the password of an empty user name", async () => {
    await using edge = await startNatsServer();
    await using relay = await startRelay(edge);
    const [statement] = statementsOf("02-litmus-edge.sql");
    await gateway.client.query(withOptions(statement!, { host: "127.0.0.1", port: `${relay.port}` }));
    await gateway.client.query("SELECT litmus_pgnats_reload_conf()");
    const [, hello] = /^CONNECT (\{.*\})\r\n/m.exec(relay.sent())!;
    expect(JSON.parse(hello!)).toMatchObject({ user: "", pass: "<Access Account Token>" });
    expect(await gateway.value("SELECT server_id FROM nats_get_server_info()")).toMatch(/^N/);
    await gateway.client.query("DROP SERVER le_nats_fdw_server");
  });

  it("03: cannot be as written: tls_insecure 'true' beside tls_ca_path", async () => {
    await runBlock("03-external-server.sql", [
      failing("HV024", /^option "tls_insecure" may not be true beside option "tls_ca_path"$/),
    ]);
    expect((await gateway.client.query("SELECT FROM pg_foreign_server")).rowCount).toBe(0);
  });

  it("03: connects without either of the two, by the credentials that come first, over mutual TLS", async () => {
    for (const without of ["tls_ca_path", "tls_insecure"] as const) {
      await gateway.client.query("DROP SERVER IF EXISTS nats_fdw_server");
      await gateway.client.query(externalServer(without));
      await gateway.client.query("SELECT litmus_pgnats_reload_conf()");
      const { rows } = await gateway.client.query(
        "SELECT server_id, tls_required, auth_required FROM nats_get_server_info()",
      );
      expect(rows, without).toEqual([
        { server_id: hub.stock.info!.server_id, tls_required: true, auth_required: true },
      ]);
    }
  });

  it("04: reloading keeps the connection, and with force makes another", async () => {
    const connection = () => gateway.value("SELECT client_id FROM nats_get_server_info()");
    let before = await connection();
    await runBlock("04-reload.sql", [
      async (rows) => {
        nothing(rows);
        expect(await connection()).toBe(before);
      },
      async (rows) => {
        nothing(rows);
        const after = await connection();
        expect(after).not.toBe(before);
        before = after;
      },
    ]);
  });

  it("05: publishing", async () => {
    await witness.manager.streams.add({ name: "subject", subjects: ["sub.ject"] });
    let stored = 0;
    const published =
      (payload: string, reply = "", id?: string): Effect =>
      async (rows) => {
        nothing(rows);
        const message = await witness.message();
        expect([message.subject, message.string(), message.reply ?? ""]).toEqual(["sub.ject", payload, reply]);
        expect(message.headers?.values("Nats-Msg-Id")).toEqual(id === undefined ? undefined : [id]);
        stored++;
      };
    const intoStream =
      (payload: string): Effect =>
      async (rows) => {
        nothing(rows);
        expect((await witness.message()).reply).toMatch(/./);
        // The ack has been waited for: it is there.
        const { state } = await witness.manager.streams.info("subject");
        expect(state.last_seq).toBe(++stored);
        const message = await witness.manager.streams.getMessage("subject", { seq: stored });
        expect([message?.subject, message?.string()]).toEqual(["sub.ject", payload]);
        expect(message?.header.get("Nats-Msg-Id")).toMatch(/./);
      };
    await runBlock("05-publish.sql", [
      published("hello"),
      published('{"key": "value"}'),
      published('{"key": "value"}'),
      published("data"),
      published("hello", "reply.subject"),
      published("hello", "", "1"),
      intoStream("hello"),
      intoStream('{"key": "value"}'),
      intoStream('{"key": "value"}'),
      intoStream("data"),
      intoStream("hello"),
    ]);
  });

  /** Reads the subscriptions as operators see them. */
  const subscriptions = async () =>
    (
      await gateway.client.query("SELECT subject || ' ' || callback AS line FROM pgnats.subscriptions ORDER BY 1")
    ).rows.map(({ line }) => line);

  it("06: subscribing", async () => {
    // It subscribes functions that it does not show, in a schema with the name of a key word.
    await gateway.client.query(`
      CREATE SCHEMA schema;
      CREATE FUNCTION schema.handle_user_created(msg bytea) RETURNS void LANGUAGE sql AS 'SELECT';
      CREATE FUNCTION schema.log_user_created(msg bytea) RETURNS void LANGUAGE sql AS 'SELECT';
    `);
    const leaving =
      (...names: string[]): Effect =>
      async (rows) => {
        nothing(rows);
        expect(await subscriptions()).toEqual(
          names.map((name) => `events.user.created schema.${name}_user_created(bytea)`),
        );
      };
    await runBlock("06-subscribe.sql", [leaving("handle"), leaving("handle", "log"), leaving("log")]);
    await gateway.client.query("DROP SCHEMA schema CASCADE");
    expect(await subscriptions()).toEqual([]);
  });

  it("07: requests, to a responder that is set up", async () => {
    const asked: string[] = [];
    const responder = witness.respond("rpc.subject", (request) => {
      asked.push(request.string());
      return `answer ${asked.length}`;
    });
    await hub.stock.flush();
    const answer = (number: number) => returning(Buffer.from(`answer ${number}`));
    await runBlock("07-request.sql", [answer(1), answer(2), answer(3), answer(4)]);
    expect(asked).toEqual(["payload", '{"q": "v"}', '{"q": "v"}', "data"]);
    responder.unsubscribe();
    await hub.stock.flush();
    const nobody = failing("NA002", /"rpc.subject"/);
    await runBlock("07-request.sql", [nobody, nobody, nobody, nobody]);
  });

  /** The functions that answer, by the rows that the bridge reads. */
  const responders = async () =>
    (
      await gateway.client.query(
        "SELECT subject || ' ' || function_name AS line FROM hawser_bridge_data.nats_handlers WHERE kind = 'responder' ORDER BY 1",
      )
    ).rows.map(({ line }) => line);

  it("08: registering a responder", async () => {
    await gateway.client.query(
      "CREATE FUNCTION public.handle_ping(payload bytea) RETURNS bytea LANGUAGE sql AS 'SELECT payload'",
    );
    await runBlock("08-responders.sql", [
      async (rows) => {
        nothing(rows);
        expect(await responders()).toEqual(["rpc.ping handle_ping"]);
      },
      async (rows) => {
        nothing(rows);
        expect(await responders()).toEqual([]);
      },
    ]);
  });

  it("09: the example responder", async () => {
    await runBlock("09-example-responder.sql", [
      (rows) => expect(rows).toEqual([]),
      async (rows) => {
        nothing(rows);
        expect(await responders()).toEqual(["litmus.test.responder litmus_pgnats_test_responder"]);
      },
    ]);
    expect(await gateway.value("SELECT litmus_pgnats_test_responder('ping', 'subject', 'reply')")).toBe("echo ping");
  });

  it("10: keys and values", async () => {
    const put =
      (bytes: string, revision: number): Effect =>
      async (rows) => {
        returning(`${revision}`)(rows);
        expect(await witness.value("bucket", "key", "hub")).toMatchObject({ revision, operation: "PUT" });
        expect((await witness.value("bucket", "key", "hub"))!.string()).toBe(bytes);
      };
    const deleted: Effect = async (rows) => {
      nothing(rows);
      expect((await witness.value("bucket", "key", "hub"))?.operation).toBe("DEL");
    };
    const writes = [put("value", 1), put('{"x": 1}', 2), put('{"x": 1}', 3), put("data", 4), put("value", 5)];
    const notJson = failing("22P02", /bucket 'bucket', key 'key' is not jsonb?$/);
    await runBlock("10-key-value.sql", [
      ...writes,
      returning("value"),
      // What was written last is no JSON.
      notJson,
      notJson,
      returning(Buffer.from("value")),
      returning("value"),
      deleted,
      deleted,
    ]);

    const bucket = await new Kvm(jetstream(hub.stock, { domain: "hub" })).open("bucket");
    const [getJson, getJsonb] = statementsOf("10-key-value.sql").filter((one) => /nats_get_jsonb?\(/.test(one));
    expect(await gateway.value(getJson!)).toBeNull();
    await bucket.put("key", '{"x": 1}');
    expect(await gateway.value(getJson!)).toEqual({ x: 1 });
    expect(await gateway.value(getJsonb!)).toEqual({ x: 1 });
  });

  it("11: files", async () => {
    const put: Effect = async (rows) => {
      nothing(rows);
      expect((await witness.file("store", "file.txt", "hub"))?.toString()).toBe("content");
    };
    const noRows: Effect = (rows) => expect(rows).toEqual([]);
    await runBlock("11-object-store.sql", [
      put,
      put,
      returning(Buffer.from("content")),
      async (rows) => {
        nothing(rows);
        expect(await witness.file("store", "file.txt", "hub")).toBeUndefined();
      },
      // It has just been deleted.
      failing("58P01", /"file\.txt".*"store"/),
      noRows,
      noRows,
    ]);

    const store = await new Objm(jetstream(hub.stock, { domain: "hub" })).open("store");
    const { nuid, digest } = await store.putBlob({ name: "file.txt" }, Buffer.from("from outside"));
    const row = expect.objectContaining({ name: "file.txt", bucket: "store", size: "12", delete: false, nuid, digest });
    for (const statement of statementsOf("11-object-store.sql").filter((one) => one.includes("SELECT * FROM"))) {
      expect((await gateway.client.query(statement)).rows, statement).toEqual([row]);
    }
  });

  it("12: version and server", async () => {
    await runBlock("12-utility.sql", [
      (rows) => expect(rows).toEqual([expect.objectContaining({ version: expect.stringMatching(/^\d+\.\d+\.\d+/) })]),
      (rows) =>
        expect(rows).toEqual([
          expect.objectContaining({
            server_id: hub.stock.info!.server_id,
            version: hub.stock.info!.version,
            port: hub.server.port,
          }),
        ]),
    ]);
  });

  it("13: the example", async () => {
    await gateway.client.query("DROP SERVER nats_fdw_server");
    await using edge = await startNatsServer();
    const independent = await connect({ servers: edge.url });
    try {
      const subscribed: Effect = async (rows) => {
        nothing(rows);
        expect(await subscriptions()).toEqual([
          "devicehub.alias.<mydevice>.<mytag> public.litmus_pgnats_test_capture(bytea)",
        ]);
        await eventually("a message of the edge is in the table", async () => {
          independent.publish("devicehub.alias.<mydevice>.<mytag>", "from the edge");
          return Number(await gateway.value("SELECT count(*) FROM litmus_pgnats_test_messages")) > 0;
        });
      };
      const messages: Effect = (rows) => expect(rows[0]).toMatchObject({ payload: "from the edge" });
      const unsubscribed: Effect = async (rows) => {
        nothing(rows);
        expect(await subscriptions()).toEqual([]);
      };
      const empty: Effect = (rows) => expect(rows).toEqual([]);
      const statements = statementsOf("13-example.sql").filter((statement) => !isElsewhere(statement));
      const effects: readonly Effect[] = [
        empty,
        nothing,
        (rows) => expect(rows).toEqual([expect.objectContaining({ server_id: independent.info!.server_id })]),
        empty,
        empty,
        subscribed,
        messages,
        unsubscribed,
      ];
      expect(effects.length).toBe(statements.length);
      for (const [index, statement] of statements.entries()) {
        const reachable = statement.includes("CREATE SERVER")
          ? withOptions(statement, { host: edge.host, port: `${edge.port}` })
          : statement;
        await effects[index]!((await gateway.client.query(reachable)).rows);
      }
    } finally {
      await independent.close();
    }
  });
});
