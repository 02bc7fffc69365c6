import { type JetStreamManager, jetstreamManager } from "@nats-io/jetstream";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type TestGateway, testGateway } from "../support/gateway.js";
import { startNatsServer, type TestNatsServer } from "../support/nats-server.js";
import { hawser } from "./support/hawser.js";

let server: TestNatsServer;
let gateway: TestGateway;
let manager: JetStreamManager;
beforeAll(async () => {
  server = await startNatsServer({ jetStream: true });
  gateway = await testGateway({ natsUrl: server.url });
  manager = await jetstreamManager(gateway.nats);
});
afterEach(async () => {
  for await (const { config } of manager.streams.list()) await manager.streams.delete(config.name);
});
afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
});

const streams = (...args: string[]) => hawser(["streams", ...args], { databaseUrl: gateway.database.url });
const configOf = async (name: string) => (await manager.streams.info(name)).config;

describe("hawser streams", () => {
  it("makes, lists, changes and deletes a stream", async () => {
    expect(await streams("list")).toEqual({ status: 0, signal: null, stdout: "", stderr: "There is no stream.\n" });
    expect(await streams("list", "--json")).toMatchObject({ status: 0, stdout: "", stderr: "" });
    const limits = ["--max-age", "1m", "--max-messages", "1", "--duplicate-window", "1s", "--discard", "new"];
    const created = await streams("create", "ORDERS", "--subject", "orders.>", "--subject", "returns.*", ...limits);
    expect(created).toMatchObject({ status: 0, stdout: 'Made the stream "ORDERS".\n', stderr: "" });
    expect(await configOf("ORDERS")).toMatchObject({
      ...{ subjects: ["orders.>", "returns.*"], max_age: 60_000e6, max_msgs: 1, duplicate_window: 1_000e6 },
      ...{ discard: "new", storage: "file", retention: "limits" },
    });
    await gateway.value("SELECT nats_publish_text_stream('orders.1', 'rope')");
    const listed = (await streams("list")).stdout.split("\n");
    expect(listed[0]).toMatch(
      /^STREAM +SUBJECTS +STORAGE +RETENTION +LIMITS +REPLICAS +MESSAGES +BYTES +CONSUMERS +CREATED$/,
    );
    expect(listed[1]).toMatch(/^ORDERS +orders\.> returns\.\* +file +limits +1m, 1 message +1 +1 +\d+ +0 +\d{4}-.*Z$/);
    const updated = await streams("update", "ORDERS", "--max-messages", "0", "--json");
    expect(updated).toMatchObject({ status: 0, stdout: '{"stream":"ORDERS","outcome":"updated"}\n' });
    expect(JSON.parse((await streams("list", "--json")).stdout)).toMatchObject({
      ...{ stream: "ORDERS", subjects: ["orders.>", "returns.*"], maxMessages: 0, maxAgeMs: 60_000, messages: 1 },
      ...{ maxMessageBytes: 0, firstSeq: 1, lastSeq: 1, consumers: 0, replicas: 1 },
    });
    const deleted = await streams("delete", "ORDERS");
    expect(deleted).toMatchObject({ status: 0, stdout: 'Deleted the stream "ORDERS".\n' });
    expect((await streams("list", "--json")).stdout).toBe("");
  });

  it("hands on what the SQL functions refuse, with the status of the code", async () => {
    const missing = await streams("delete", "NONE");
    expect(missing).toMatchObject({ status: 64, stdout: "" });
    expect(missing.stderr).toContain('there is no stream "NONE". See `hawser streams list`.');
    const none = await streams("update", "NONE", "--max-bytes", "5B");
    expect(none).toMatchObject({ status: 69, stdout: "" });
    expect(none.stderr).toContain('The update of stream "NONE" failed: there is no such stream.');
    const wrong = await streams("create", "a.b", "--subject", "x");
    expect(wrong).toMatchObject({ status: 64, stdout: "" });
    expect(wrong.stderr).toContain('the argument stream is "a.b", and must be the name of a stream');
    await streams("create", "TWICE", "--subject", "twice", "--storage", "memory", "--retention", "workqueue");
    expect(await configOf("TWICE")).toMatchObject({ storage: "memory", retention: "workqueue" });
    const other = await streams("create", "TWICE", "--subject", "twice");
    expect(other).toMatchObject({ status: 70, stdout: "" });
    expect(other.stderr).toContain("stream name already in use");
  });

  const refusals: readonly (readonly [args: string[], words: string])[] = [
    [["list", "ORDERS"], 'it lists all, and takes no name: "ORDERS"'],
    [["create", "ORDERS"], "say which messages, such as --subject 'orders.>'"],
    [["update", "ORDERS"], "name a setting to change: --subject, --discard,"],
    [["update", "ORDERS", "--storage", "file"], "--storage goes with create"],
    [["delete", "ORDERS", "--subject", "x"], "--subject goes with create and update"],
    [["delete"], "name the stream"],
    [["create", "ORDERS", "--subject", "x", "--storage", "disk"], "--storage"],
    [["create", "ORDERS", "--subject", "x", "--max-bytes", "64MB"], "write 64MiB"],
    [["create", "ORDERS", "--subject", "x", "--replicas", "6"], "from 1 to 5"],
    [["remove", "ORDERS"], "It can list, create, update, delete"],
  ];
  it.each(refusals)("refuses %j before it connects", async (args, words) => {
    const { status, stdout, stderr } = await hawser(["streams", ...args], {
      databaseUrl: "postgres://127.0.0.1:1/none",
    });
    expect({ status, stdout }).toEqual({ status: 64, stdout: "" });
    expect(stderr).toContain(words);
  });

  it("calls only functions of the installation, whatever others have made with their names", async () => {
    const role = `hawser_test_streams_${process.pid}`;
    await gateway.client.query(`
      CREATE ROLE ${role}; CREATE SCHEMA aaa AUTHORIZATION ${role}; GRANT USAGE ON SCHEMA aaa TO PUBLIC;
      SET ROLE ${role};
      CREATE FUNCTION aaa.nats_get_stream_list(domain text DEFAULT NULL) RETURNS TABLE (stream text) LANGUAGE plpgsql
        SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS $$BEGIN RAISE 'hawser.gateway_call of another'; END$$;
      RESET ROLE`);
    try {
      expect(await streams("list")).toMatchObject({ status: 0 });
    } finally {
      await gateway.client.query(`DROP SCHEMA aaa CASCADE; DROP ROLE ${role}`);
    }
  });

  it("says what a login lacks, and a database without the functions", async () => {
    const role = `hawser_test_streams_login_${process.pid}`;
    const url = new URL(gateway.database.url);
    await gateway.client.query(`CREATE ROLE ${role} LOGIN PASSWORD 'x'; GRANT hawser_peer TO ${role}`);
    try {
      Object.assign(url, { username: role, password: "x" });
      const refused = await hawser(["streams", "list"], { databaseUrl: url.href });
      expect(refused.status).not.toBe(0);
      expect(refused.stderr).toContain("permission denied for function nats_get_stream_list");
      await gateway.client.query(`GRANT hawser_nats TO ${role}`);
      expect(await hawser(["streams", "list"], { databaseUrl: url.href })).toMatchObject({ status: 0 });
    } finally {
      await gateway.client.query(`DROP ROLE ${role}`);
    }
  });
});
