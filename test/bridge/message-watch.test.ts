/**
 * Checks of Postgres's messages before the driver reads them: oversized messages, and the error that ends the session.
 */
import { PassThrough } from "node:stream";
import pg from "pg";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { MessageWatch } from "../../src/nats/bridge/executor/executor-session.js";
import { failureOf } from "../../src/nats/bridge/executor/transaction.js";
import { testServerUrl } from "../support/database.js";

const limit = 1_000_000;
const unaskedLimit = 100_000;

describe("a session whose messages are limited", () => {
  let client: pg.Client;
  let watch: MessageWatch;
  let failure: Error | undefined;
  beforeEach(async () => {
    failure = undefined;
    client = new pg.Client(testServerUrl());
    client.on("error", (error) => {
      failure = error;
    });
    await client.connect();
    watch = new MessageWatch(client.connection.stream, limit, unaskedLimit);
  });
  afterEach(async () => client?.end().catch(() => undefined));

  it("takes many below the limit, in whatever pieces they come", async () => {
    const { rows } = await client.query(
      "SELECT n, repeat('x', n) AS text FROM generate_series(0, 100000, 500) AS s (n)",
    );
    expect(rows.every(({ n, text }) => text.length === n)).toBe(true);
    expect((await client.query("SELECT repeat('x', 999000) AS text")).rows[0].text).toHaveLength(999_000);
  });

  it("does not take an error of a statement for the end of the session, however long it is", async () => {
    await expect(client.query(`DO $$BEGIN RAISE EXCEPTION 'FATAL'; END$$`)).rejects.toThrow("FATAL");
    await expect(client.query(`DO $$BEGIN RAISE EXCEPTION '%', repeat('x', 900000); END$$`)).rejects.toThrow("xxx");
    expect(watch.isEnding).toBe(false);
  });

  it("takes notices in each transaction up to their limit, and no more", async () => {
    const notices = (count: number) =>
      `DO $$BEGIN FOR n IN 1..${count} LOOP RAISE NOTICE '%', repeat('x', 900); END LOOP; END$$`;
    for (let transaction = 0; transaction < 3; transaction++) {
      watch.startTransaction();
      await client.query(notices(80));
    }
    const other = new pg.Client(testServerUrl());
    other.on("error", () => undefined);
    await other.connect();
    new MessageWatch(other.connection.stream, limit, unaskedLimit);
    await expect(other.query(notices(5_000))).rejects.toThrow(/more than 100000 bytes of notices and notifications/);
  });

  it("ends before an error above it is kept, and says why", async () => {
    const longError = `DO $$BEGIN RAISE EXCEPTION '%', repeat('x', 2000000); END$$`;
    await expect(client.query(longError)).rejects.toThrow(/of 2\d{6} bytes; the limit is 1000000/);
    expect(failure?.message ?? "ended").toMatch(/closed|ended/);
  });
});

it("finds the length of a message wherever it is split", () => {
  const message = (payload: number) => {
    const bytes = Buffer.alloc(5 + payload);
    bytes.write("D");
    bytes.writeUInt32BE(4 + payload, 1);
    return bytes;
  };
  const fine = Buffer.concat([message(0), message(20), message(1), message(20)]);
  const tooLong = Buffer.concat([fine, message(21)]);
  for (let size = 1; size <= tooLong.length; size++) {
    for (const [bytes, ends] of [
      [fine, false],
      [tooLong, true],
    ] as const) {
      const stream = new PassThrough().on("error", () => undefined);
      new MessageWatch(stream, 20, 0);
      for (let at = 0; at < bytes.length; at += size) stream.emit("data", bytes.subarray(at, at + size));
      expect(stream.destroyed, `in pieces of ${size}`).toBe(ends);
    }
  }
});

it("keeps the beginning of a long error", () => {
  const error = new pg.DatabaseError("€".repeat(1_000_000), 0, "error");
  error.code = "P0001";
  expect(failureOf(error, 0, 1).message).toBe(`${"€".repeat(2_729)}...`);
});

describe("an error that ends the session is known by what is not translated", () => {
  const error = (fields: Record<string, string>, type = "E") => {
    const texts = Object.entries(fields).map(([name, text]) => `${name}${text}\0`);
    const body = Buffer.from(`${texts.join("")}\0`);
    const bytes = Buffer.concat([Buffer.from(type), Buffer.alloc(4), body]);
    bytes.writeUInt32BE(4 + body.length, 1);
    return bytes;
  };
  const long = "x".repeat(5_000);
  it.each([
    ["in English", error({ S: "FATAL", V: "FATAL", C: "57P01", M: "m" }), true],
    ["in Russian", error({ S: "ВАЖНО", V: "FATAL", C: "57P01", M: "m" }), true],
    ["in Chinese, by a panic, with a long message", error({ S: "致命错误", V: "PANIC", C: "XX000", M: long }), true],
    ["by a pooler that sends no V", error({ S: "FATAL", C: "08P01", M: "m" }), true],
    ["but one of a statement does not", error({ S: "ОШИБКА", V: "ERROR", C: "57P01", M: "FATAL" }), false],
    ["nor one whose word is that of the end elsewhere", error({ S: "FATAL", V: "ERROR", C: "P0001", M: long }), false],
    ["nor a notice", error({ S: "FATAL", V: "FATAL", C: "00000", M: "m" }, "N"), false],
    ["nor one without fields", error({}), false],
  ])("%s", (_what, last, ends) => {
    const before = Buffer.concat([error({ S: "ERROR", V: "ERROR", M: long }), error({ S: "a" }, "D")]);
    const bytes = Buffer.concat([before, last]);
    for (const size of [1, 2, 3, 7, 64, bytes.length]) {
      const stream = new PassThrough();
      const watch = new MessageWatch(stream, 10_000, 10_000);
      for (let at = 0; at < bytes.length; at += size) {
        expect(watch.isEnding).toBe(false);
        stream.emit("data", bytes.subarray(at, at + size));
      }
      expect(watch.isEnding, `in pieces of ${size}`).toBe(ends);
    }
  });
});
