/**
 * What a function makes longer than anything should be.
 */
import { PassThrough } from "node:stream";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bridgeConstants } from "../../generated/ts/settings/nats.js";
import { failureOf } from "../../src/bridge/executor/failure.js";
import { limitMessages } from "../../src/bridge/executor/message-limit.js";
import { testServerUrl } from "../support/database.js";

const limit = 1_000_000;

describe("a session whose messages are limited", () => {
  let client: pg.Client;
  let failure: Error | undefined;
  beforeAll(async () => {
    client = new pg.Client(testServerUrl());
    client.on("error", (error) => {
      failure = error;
    });
    await client.connect();
    limitMessages(client.connection.stream, limit);
  });
  afterAll(async () => client?.end().catch(() => undefined));

  it("takes many below the limit, in whatever pieces they come", async () => {
    const { rows } = await client.query(
      "SELECT n, repeat('x', n) AS text FROM generate_series(0, 100000, 500) AS s (n)",
    );
    expect(rows.every(({ n, text }) => text.length === n)).toBe(true);
    expect((await client.query("SELECT repeat('x', 999000) AS text")).rows[0].text).toHaveLength(999_000);
  });

  it("ends before an error above it is kept, and says why", async () => {
    const longError = `DO $$BEGIN RAISE EXCEPTION '%', repeat('x', 2000000); END$$`;
    await expect(client.query(longError)).rejects.toThrow(/of 2\d{6} bytes, and at most 1000000 are taken/);
    expect(failure?.message ?? "ended").toMatch(/ended/);
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
      limitMessages(stream, 20);
      for (let at = 0; at < bytes.length; at += size) stream.emit("data", bytes.subarray(at, at + size));
      expect(stream.destroyed, `in pieces of ${size}`).toBe(ends);
    }
  }
});

it("keeps the beginning of a long error", () => {
  const error = new pg.DatabaseError("x".repeat(1_000_000), 0, "error");
  error.code = "P0001";
  expect(failureOf(error, 0, 1).message.length).toBe(bridgeConstants.maxErrorMessageLength);
});
