import pg from "pg";
import { describe, expect, it, onTestFinished } from "vitest";
import { errorTable, HawserError } from "../../../src/foundation/errors/index.js";
import type { PostgresServer } from "../../../src/nats/gateway/protocol/index.js";
import { eventually } from "../../support/eventually.js";
import { database, KeepingLogger, password, startServer, textOf, user } from "./test-server.js";

async function connect(server: PostgresServer, changes: pg.ClientConfig = {}): Promise<pg.Client> {
  const client = new pg.Client({ ...server.address, user, database, password, ...changes });
  client.on("error", () => undefined);
  await client.connect();
  onTestFinished(() => client.end());
  return client;
}

async function ask(client: pg.Client, query: string): Promise<unknown> {
  const { rows } = await client.query<{ r: unknown }>(query);
  return rows[0]?.r;
}

describe("a client that knows the password", () => {
  it("is told what a HawserError says, and its code's remedy if it has no hint", async () => {
    const server = await startServer({
      answer: (query) => {
        if (textOf(query) === "throw")
          throw new HawserError("no_responders", "nobody\0there", { detail: "the detail" });
        return Promise.reject(new HawserError("file_missing", "no file", { remedy: "look" }));
      },
    });
    const client = await connect(server);
    await expect(ask(client, "throw")).rejects.toMatchObject({
      severity: "ERROR",
      code: errorTable.no_responders.sqlstate,
      message: "nobody\ufffdthere",
      detail: "the detail",
      hint: errorTable.no_responders.remedy,
    });
    await expect(ask(client, "reject")).rejects.toMatchObject({
      code: errorTable.file_missing.sqlstate,
      message: "no file",
      detail: undefined,
      hint: "look",
    });
  });

  it("is told XX000 and the message of anything else, which is logged", async () => {
    const logger = new KeepingLogger();
    const server = await startServer({
      logger,
      answer: () => {
        throw new TypeError("undefined is not a function");
      },
    });
    const client = await connect(server);
    const error = (await ask(client, "x").catch((thrown: unknown) => thrown)) as pg.DatabaseError;
    expect(error).toMatchObject({ code: "XX000", message: expect.stringContaining("undefined is not a function") });
    expect(error.detail).toBeUndefined();
    expect(logger.lines).toMatchObject([{ level: "error", details: { err: expect.any(TypeError), session: 1 } }]);
  });

  it("gets not_text instead of a value that Postgres could not hold", async () => {
    const server = await startServer({ answer: () => ({ kind: "row", value: "a\0b" }) });
    const client = await connect(server);
    await expect(ask(client, "NUL")).rejects.toMatchObject({ code: errorTable.not_text.sqlstate });
  });

  it("gets XX000 for an error whose SQLSTATE is none", async () => {
    const server = await startServer({ answer: (query) => ({ kind: "error", sqlstate: textOf(query), message: "m" }) });
    const client = await connect(server);
    for (const sqlstate of ["00000", "abc", "NA00", "NA\u00001"]) {
      await expect(ask(client, sqlstate.replace("\0", "x"))).rejects.toMatchObject({ code: "XX000", message: "m" });
    }
    await expect(ask(client, "NA001")).rejects.toMatchObject({ code: "NA001" });
  });

  it("has a session with a number, which ends when it goes", async () => {
    const ended: string[] = [];
    const server = await startServer({
      answer: (_query, session) => ({ kind: "row", value: `${session.id} ${session.isOpen}` }),
      onClientEnd: (session) => ended.push(`${session.id} ${session.isOpen}`),
    });
    const client = new pg.Client({ ...server.address, user, database, password, application_name: "orders" });
    await client.connect();
    expect(await ask(client, "who")).toBe("1 true");
    await client.end();
    await eventually("the session ends", () => ended.length > 0);
    expect(ended).toEqual(["1 false"]);
    expect(server.sessionCount).toBe(0);
  });
});

describe("a client that may not come in", () => {
  it("is refused with the code of what is wrong, and the log does not have the password", async () => {
    const logger = new KeepingLogger();
    const server = await startServer({ logger });
    const refusals: readonly (readonly [changes: pg.ClientConfig, code: string])[] = [
      [{ password: "wrong" }, "28P01"],
      [{ user: "postgres" }, "28P01"],
      [{ user: "postgres", database: "other" }, "28P01"],
      [{ database: "other" }, "3D000"],
      [{ database: "other", password: "wrong" }, "28P01"],
    ];
    for (const [changes, code] of refusals) {
      await expect(connect(server, changes), JSON.stringify(changes)).rejects.toMatchObject({
        severity: "FATAL",
        code,
      });
    }
    await server.stop({ deadlineMs: 0 });
    const line = (words: string, name: string, times?: number) => ({
      level: "warn",
      message: expect.stringContaining(name),
      details: {
        words,
        remoteAddress: expect.stringContaining("127.0.0.1"),
        ...(times === undefined ? {} : { times }),
      },
    });
    // Whoever tries without end does not fill the log: each refusal is logged once, and counted from then on.
    expect(logger.lines).toMatchObject([
      ...[line("28P01", `"${user}"`), line("28P01", '"postgres"'), line("3D000", '"other"')],
      ...[line("28P01", `"${user}"`, 1), line("28P01", '"postgres"', 1)],
    ]);
    expect(JSON.stringify(logger.lines)).not.toContain(password);
    expect(server.sessionCount).toBe(0);
  });

  it("is refused when there are as many sessions as may be, until one ends", async () => {
    const server = await startServer({ maxSessions: 2 });
    const first = new pg.Client({ ...server.address, user, database, password });
    await first.connect();
    await connect(server);
    await expect(connect(server)).rejects.toMatchObject({ code: "57P03" });
    await first.end();
    await eventually("a session is free", () => server.sessionCount === 1);
    expect(await ask(await connect(server), "x")).toBe("x");
  });
});
