/**
 * From a call's text to its answer.
 */
import { describe, expect, it, vi } from "vitest";
import type { HawserError } from "../../src/foundation/errors/index.js";
import { codeOf, flush, getFile, pending, publish, request, tested, useTestClock } from "./tested-calls.js";

useTestClock();

describe("an answer", () => {
  it("is written at once if the handler returns it at once", () => {
    const { start } = tested();
    expect(start(publish).outcome).toEqual({ kind: "row", value: null });
    expect(start('PutValue {"bucket":"b","key":"k","data":""}').outcome).toEqual({ kind: "row", value: "7" });
  });

  it("is written later if the handler returns a promise, and leaves no timer behind", async () => {
    const wait = pending<Uint8Array>();
    const { start } = tested({ request: () => wait.promise });
    const end = start(request(100));
    await flush();
    expect(end.outcome).toBe("waiting");
    wait.resolve(Buffer.from([0, 171, 255]));
    await flush();
    expect(end.outcome).toEqual({ kind: "row", value: "\\x00abff" });
    expect(vi.getTimerCount()).toBe(0);
  });

  it("to a ping is NULL, without a place and without the handler", () => {
    const { start, capacity } = tested({}, { capacity: 1 });
    capacity.tryAcquire();
    expect(start("Ping").outcome).toEqual({ kind: "row", value: null });
    expect(start("Ping {}").outcome).toEqual({ kind: "row", value: null });
  });

  it("of rows is JSON by the names of the columns, with 64 bits as text", () => {
    const { outcome } = tested().start('PublishAck {"subject":"a","payload":"QQ=="}');
    expect(outcome).toEqual({ kind: "row", value: '[{"stream":"s","seq":"1","duplicate":false}]' });
  });

  it("that is no text is refused, with the place it was read from", () => {
    const { start } = tested({ getValue: () => Buffer.from([0xff]) });
    const call = 'GetValue {"bucket":"b","key":"k","type":"TYPE"}';
    const { outcome } = start(call.replace("TYPE", "json"));
    expect(outcome).toMatchObject({ code: "not_text", message: expect.stringContaining('bucket "b", key "k"') });
    expect(start(call.replace("TYPE", "binary")).outcome).toEqual({ kind: "row", value: "\\xff" });
  });
});

describe("a call that cannot be", () => {
  it.each(["constructor", "toString", "hasOwnProperty", "valueOf", "publish", "Pong"])(
    "is refused: the method %s",
    (method) => {
      expect(tested().start(`${method} {}`).outcome).toMatchObject({
        code: "gateway_protocol",
        message: `the gateway has no method ${method}`,
      });
    },
  );

  it.each([
    ["SELECT 1", "gateway_protocol"],
    ["Publish", "gateway_protocol"],
    ["Publish []", "gateway_protocol"],
    ['Publish {"subject":"a","payload":"QQ==","__proto__":{"headers":{}}}', "gateway_protocol"],
    ['Publish {"subject":"a","payload":"QQ==","constructor":1}', "gateway_protocol"],
    ['Publish {"subject":1,"payload":"QQ=="}', "gateway_protocol"],
    ['Publish {"subject":"a","payload":"Q"}', "gateway_protocol"],
    [`${publish}\nt\n`, "gateway_protocol"],
    ['PublishBatch {"subject":"a"}', "gateway_protocol"],
    ['GetValue {"bucket":"b","key":"k","type":"xml"}', "gateway_protocol"],
    ['Request {"subject":"a","payload":"","timeout":1e10}', "gateway_protocol"],
    ["Publish {}", "null_argument"],
    ['Publish {"subject":null,"payload":"QQ=="}', "null_argument"],
    ['PublishBatch {"subject":"a"}\nn\n', "null_argument"],
    ['PublishBatch {"subject":"a"}\nt1,-\nx', "null_argument"],
    ['Publish {"subject":"a.*","payload":"QQ=="}', "invalid_argument"],
    ['Publish {"subject":"a","payload":"QQ==","headers":"x"}', "invalid_argument"],
    [`Publish {"subject":"a","payload":"QQ==","headers":{"a":[${'"",'.repeat(100_000)}""]}}`, "gateway_limit"],
    [`PublishBatch {"subject":"a"}\nt${"0,".repeat(1_000_000)}0\n`, "gateway_limit"],
  ])("is refused without a place: %.60s", (query, code) => {
    const { start, capacity } = tested({}, { capacity: 1 });
    expect(codeOf(start(query))).toBe(code);
    expect(capacity.tryAcquire()).toBe(true);
  });

  it("is refused: values nested deeper than any stack, in place of an object of headers", () => {
    const deep = (open: string, close: string) => `${open.repeat(40_000)}1${close.repeat(40_000)}`;
    for (const headers of [deep("[", "]"), `{"a":${deep("[", "]")}}`, `{"a":${deep('{"b":', "}")}}`]) {
      const { outcome } = tested().start(`Publish {"subject":"a","payload":"QQ==","headers":${headers}}`);
      expect(outcome).toMatchObject({ code: "invalid_argument" });
      expect((outcome as HawserError).message.length).toBeLessThan(300);
    }
  });

  it("names which element of an array is NULL, counted from 1 as SQL does", () => {
    expect(tested().start('PublishBatch {"subject":"a"}\nt1,1,-\nxy').outcome).toMatchObject({
      message: "nats_publish_*_batch: the argument payloads[3] is NULL, and needs a value",
      remedy: "Give payloads[3] a value; an empty message is '', and in JSON 'null'.",
    });
  });

  it("is reported in a few words, however much it holds", () => {
    for (const query of [
      `Publish {"subject":"${"a b".repeat(1e5)}","payload":""}`,
      `Publish {"${"x".repeat(1e5)}":1}`,
      `Publish {"subject":"a","payload":"","headers":"${"x".repeat(1e5)}"}`,
    ]) {
      expect((tested().start(query).outcome as HawserError).message.length).toBeLessThan(400);
    }
  });
});

describe("the largest answer", () => {
  it("is as long as the limit, in bytes on the way to Postgres", () => {
    const { start } = tested({ getFile: () => Buffer.alloc(499), getValue: () => Buffer.from("ä".repeat(500)) });
    expect(start(getFile).outcome).toEqual({ kind: "row", value: `\\x${"00".repeat(499)}` });
    expect(start('GetValue {"bucket":"b","key":"k","type":"text"}').outcome).toMatchObject({ value: "ä".repeat(500) });
  });

  it("is refused beyond it, with the limit and what to do", () => {
    const { start } = tested({ getFile: () => Buffer.alloc(500), getValue: () => Buffer.from("ä".repeat(501)) });
    const { outcome } = start(getFile);
    expect(outcome).toMatchObject({
      code: "gateway_limit",
      message: "nats_get_file: the encoded answer has 1002 bytes, and the limit is 1000",
      remedy: expect.stringContaining("--tune maxResponseBytes"),
    });
    expect(codeOf(start('GetValue {"bucket":"b","key":"k","type":"text"}'))).toBe("gateway_limit");
  });
});
