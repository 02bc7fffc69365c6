import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { failureReply } from "../../../src/nats/bridge/responders/requests.js";
import { errorHeaders, headerLine } from "../../../src/nats/connections/services/error-headers.js";

/** Texts of all characters, and of halves of surrogate pairs. */
const anyText = fc.string({ unit: fc.nat(0x10ffff).map((point) => String.fromCodePoint(point)), maxLength: 40 });

const failed = (code: string, timedOut = false) =>
  failureReply({ kind: "failed", code, message: "no such order", timedOut });

describe("a function that failed", () => {
  it.each([
    ["P0001", 500],
    ["23505", 500],
    ["57014", 500],
    ["08006", 503],
    ["57P01", 503],
    ["57P03", 503],
    ["53300", 503],
  ])("with SQLSTATE %s is status %i", (code, status) => {
    expect(failed(code)).toEqual({ status, text: `SQLSTATE ${code}: no such order`, summary: `SQLSTATE ${code}` });
  });

  it("by its time is status 504", () => {
    expect(failed("57014", true).status).toBe(504);
  });

  it("is reported in two headers", () => {
    const headers = errorHeaders(failed("P0001"));
    expect(headers.get("Nats-Service-Error")).toBe("SQLSTATE P0001: no such order");
    expect(headers.get("Nats-Service-Error-Code")).toBe("500");
  });
});

describe("a message as a header", () => {
  it("is one line", () => {
    expect(headerLine("  first\r\n\tsecond\u2028third\u0000\u001b[31m\u202e ")).toBe("first second third [31m");
    expect(headerLine("größer als 7 ⛵")).toBe("größer als 7 ⛵");
    expect(headerLine("\n")).toBe("no message");
  });

  it("is cut between characters if it is too long", () => {
    expect(headerLine("a".repeat(1024))).toBe("a".repeat(1024));
    expect(headerLine("a".repeat(1025))).toBe(`${"a".repeat(1021)}…`);
    expect(headerLine("⛵".repeat(10_000))).toBe(`${"⛵".repeat(340)}…`);
  });

  it("is printable, short and not empty, whatever it was, and arrives as it was sent", () => {
    fc.assert(
      fc.property(anyText, fc.integer({ min: 1, max: 60 }), (part, times) => {
        const text = part.repeat(times);
        const line = headerLine(text);
        expect(line).not.toMatch(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]|^\s|\s$|^$/u);
        expect(Buffer.byteLength(line)).toBeLessThanOrEqual(1024);
        expect(headerLine(line)).toBe(line);
        const reply = { status: 500, text, summary: "" } as const;
        expect(errorHeaders(reply).get("Nats-Service-Error")).toBe(line);
      }),
    );
  });
});
