import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { queueGroup, serviceName } from "../../../src/nats/bridge/responders/endpoint.js";
import { inquirySubjects, isAsked, readInquiry } from "../../../src/nats/connections/services/micro-service.js";

describe("the name of a service", () => {
  it.each([
    ["public.answer(bytea)", "public_answer"],
    ["public.answer(text,text,text)", "public_answer"],
    ['"My Schema"."ask (now)"(bytea)', "My_Schema_ask_now"],
    ['public."größe"(bytea)', "public_gr_e"],
    ['"…"."…"(bytea)', "responder"],
    ["answer", "answer"],
  ])("of %s is %s", (functionName, name) => {
    expect(serviceName(functionName)).toBe(name);
  });

  it("is one that NATS takes, whatever the function is called", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 40 }), (text) => {
        expect(serviceName(text.repeat(5))).toMatch(/^[A-Za-z0-9_-]{1,128}$/);
      }),
    );
  });
});

describe("a queue group", () => {
  it("is that of database and subject", () => {
    expect(queueGroup("a", "orders.*")).toMatch(/^hawser_[0-9a-f]{24}$/);
    expect(queueGroup("a", "orders.*")).toBe(queueGroup("a", "orders.*"));
    expect(queueGroup("a", "orders.*")).not.toBe(queueGroup("b", "orders.*"));
    expect(queueGroup("a", "orders.*")).not.toBe(queueGroup("a", "orders.>"));
  });
});

describe("a question to services", () => {
  const services = [
    { name: "one", id: "A" },
    { name: "one", id: "B" },
    { name: "two", id: "C" },
  ];

  it("comes by subjects of all, of a name, and of one", () => {
    const subjects = [...inquirySubjects(services)].sort();
    expect(subjects).toHaveLength(3 * (1 + 2 + 3));
    expect(subjects.slice(-6)).toEqual([
      ...["$SRV.STATS", "$SRV.STATS.one", "$SRV.STATS.one.A"],
      ...["$SRV.STATS.one.B", "$SRV.STATS.two", "$SRV.STATS.two.C"],
    ]);
    expect(inquirySubjects([]).size).toBe(0);
  });

  it("is for whom it names", () => {
    const asked = (subject: string) =>
      services.filter((each) => isAsked(readInquiry(subject)!, each)).map(({ id }) => id);
    expect(asked("$SRV.PING")).toEqual(["A", "B", "C"]);
    expect(asked("$SRV.INFO.one")).toEqual(["A", "B"]);
    expect(asked("$SRV.STATS.one.B")).toEqual(["B"]);
    expect(asked("$SRV.STATS.two.B")).toEqual([]);
  });

  it.each(["$SRV", "$SRV.PONG", "SRV.PING", "$SRV.PING.a.b.c", ""])("is nothing by %s", (subject) => {
    expect(readInquiry(subject)).toBeUndefined();
  });
});
