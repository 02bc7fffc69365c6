/**
 * Errors when the definition of the NATS server cannot be used, and when Postgres does not answer.
 */
import { createServer as createTcpServer } from "node:net";
import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import type { Logger } from "../../src/foundation/runtime/index.js";
import { serve } from "../../src/nats/serve/index.js";
import { testDatabase, testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { type TestGateway, testGateway } from "../support/gateway.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { startProgram } from "../support/program.js";
import { bridgeLogin, createServer, reached } from "./serving.js";

interface Line {
  readonly level: string;
  readonly message: string;
  readonly hint?: string;
}

let lines: Line[];
let gateway: TestGateway;

const query = (sql: string) => gateway.client.query(sql);
const told = (words: string) => lines.filter(({ level, message }) => level !== "debug" && message.includes(words));
const publish = "SELECT nats_publish_text('problems.a', 'x')";

describe("a definition that cannot be used, where none is in force", () => {
  beforeEach(async () => {
    lines = [];
    const at = (level: string) => (fields: object, message: string) => void lines.push({ level, message, ...fields });
    const logger: Logger = { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
    gateway = await testGateway({ serverOptions: false, logger });
    return () => gateway[Symbol.asyncDispose]();
  });

  it("is what calls speak of, until it can", async () => {
    expect(await gateway.errorOf(publish)).toMatchObject({
      code: "55000",
      message: expect.stringContaining("no NATS server is defined"),
    });
    expect(told("no NATS server is defined")).toHaveLength(1);
    const role = (await query("SELECT current_user AS name")).rows[0].name;
    await query(
      `BEGIN; ${createServer(testNatsUrl())}; CREATE USER MAPPING FOR "${role}" SERVER nats_main OPTIONS (password 'x'); COMMIT`,
    );
    await eventually("it is told", async () => (await gateway.errorOf(publish)).message.includes("invalid"));
    const error = await gateway.errorOf(publish);
    expect(error).toMatchObject({ code: "55000", hint: expect.stringMatching(/./) });
    expect(error.hint).not.toContain("CREATE SERVER");
    expect(told("cannot be used")).toEqual([expect.objectContaining({ level: "warn", remedy: error.hint })]);
    await query(`DROP USER MAPPING FOR "${role}" SERVER nats_main`);
    await eventually("it works", async () => typeof (await reached(gateway)) === "object");
    expect(told("can be used again")).toHaveLength(1);
    await query("DROP SERVER nats_main");
    await eventually("that is told, too", () => told("no NATS server is defined").length === 2);
  });

  it("may be two servers: calls name both, and a reload fails with Postgres's words", async () => {
    const triggers = (await query("SELECT evtname FROM pg_event_trigger WHERE evtname LIKE 'hawser%'")).rows;
    for (const { evtname } of triggers) await query(`ALTER EVENT TRIGGER ${evtname} DISABLE`);
    try {
      // At once: the poll would take the first of them for the server.
      const first = createServer(testNatsUrl());
      await query(`BEGIN; ${first}; ${first.replace("nats_main", "nats_second")}; COMMIT`);
      expect(await gateway.errorOf("SELECT litmus_pgnats_reload_conf()")).toMatchObject({
        code: "22023",
        message: expect.stringContaining("nats_main, nats_second"),
        hint: expect.stringContaining("DROP SERVER nats_second"),
      });
      expect(await gateway.errorOf(publish)).toMatchObject({
        code: "55000",
        message: expect.stringContaining("nats_main, nats_second"),
        hint: expect.stringContaining("DROP SERVER nats_second"),
      });
    } finally {
      await query("DROP SERVER IF EXISTS nats_main, nats_second CASCADE");
      for (const { evtname } of triggers) await query(`ALTER EVENT TRIGGER ${evtname} ENABLE`);
      await query("SELECT litmus_pgnats_reload_conf()").catch(() => undefined);
    }
  });

  it("may have a user mapping for PUBLIC, which is named, because it does not count", async () => {
    const login = await bridgeLogin(gateway.database.url);
    try {
      await gateway.serve.stop();
      await query(createServer(testNatsUrl(), { username: "somebody" }));
      await query("CREATE USER MAPPING FOR PUBLIC SERVER nats_main OPTIONS (password 'x')");
      await using _serve = await serve({ databaseUrl: login.url, listen: "127.0.0.1:0" });
      const error = await gateway.errorOf(publish);
      expect(error).toMatchObject({ code: "55000", message: expect.stringContaining("invalid") });
      expect(error.hint).toContain(`The user mapping for PUBLIC has no effect: only one for ${login.name}`);
    } finally {
      await query("DROP SERVER IF EXISTS nats_main CASCADE");
      await login.drop();
    }
  });
});

it("says that the SQL functions are missing, and what makes them", async () => {
  await using database = await testDatabase({ nats: false });
  const found: string[] = [];
  const silent = { debug: () => undefined, info: () => undefined, error: () => undefined };
  const logger: Logger = { ...silent, warn: (_, message) => void found.push(message) };
  await using _serve = await serve({ databaseUrl: database.url, listen: "127.0.0.1:0", logger });
  expect(found).toContain("the SQL functions are not installed in this database: run `hawser init`");
});

describe("a login that lacks rights", () => {
  it("is told of hawser_bridge", async () => {
    await using database = await testDatabase();
    const login = await bridgeLogin(database.url);
    try {
      await onServer(database.url, `REVOKE hawser_bridge FROM ${login.name}`);
      await expect(serve({ databaseUrl: login.url, listen: "127.0.0.1:0" })).rejects.toMatchObject({
        code: "not_permitted",
        message: expect.stringMatching(/GRANT hawser_bridge TO "bridge_of_\w+"$/),
      });
      await onServer(database.url, `GRANT hawser_peer TO ${login.name}`);
      await expect(serve({ databaseUrl: login.url, listen: "127.0.0.1:0" })).rejects.toMatchObject({
        message: expect.stringMatching(/GRANT hawser_bridge TO "bridge_of_\w+"$/),
      });
    } finally {
      await login.drop();
    }
  });

  it("names `hawser init` if there is no schema, and does not create one even if it could", async () => {
    await using database = await testDatabase({ migrated: false });
    const login = await bridgeLogin(database.url);
    try {
      for (const databaseUrl of [login.url, database.url]) {
        await expect(serve({ databaseUrl, listen: "127.0.0.1:0" })).rejects.toMatchObject({
          code: "schema_missing",
          message: `the database "${database.name}" has no schema hawser: run \`hawser init\` on it, or name the right database`,
        });
      }
      expect(await rowsOf(database.url, "SELECT to_regnamespace('hawser') AS schema")).toEqual([{ schema: null }]);
    } finally {
      await login.drop();
    }
  });
});

describe("a Postgres that is silent", () => {
  it("does not keep a start from ending", async () => {
    const taken = new Promise<void>((resolve) => {
      const server = createTcpServer(() => resolve()).listen(0, "127.0.0.1", () => {
        const { port } = server.address() as { port: number };
        const args = ["serve", "--listen", "127.0.0.1:0", "--database-url", `postgres://nobody@127.0.0.1:${port}/none`];
        program = startProgram("src/operating/cli/main.ts", args, { stdin: "ignore" });
        program.firstLine.catch(() => undefined);
      });
      onTestFinished(() => void server.close());
    });
    let program: ReturnType<typeof startProgram> | undefined;
    await taken;
    // The time limit of the connection would be an error.
    process.kill(program!.pid, "SIGTERM");
    expect(await program!.ended).toMatchObject({ status: 0, stderr: "" });
  });
});
