import { describe, expect, it } from "vitest";
import { errorOfWireCode, errorTable, exitStatusOf, HawserError } from "../../src/errors/index.js";

describe("HawserError", () => {
  it("carries code, message, cause and what the spec says of the code", () => {
    const cause = new Error("ECONNREFUSED");
    const error = new HawserError("store_failed", "Postgres at 127.0.0.1:1 cannot be reached.", { cause });
    expect(error).toMatchObject({ code: "store_failed", retryable: true, cause, name: "HawserError" });
    expect(error.entry).toBe(errorTable.store_failed);
    expect(String(error)).toBe("HawserError: Postgres at 127.0.0.1:1 cannot be reached.");
  });

  it("has an outcome and a cause only where one was given", () => {
    const unknown = new HawserError("store_failed", "It may still arrive.", { outcome: "unknown" });
    expect(unknown.outcome).toBe("unknown");
    expect("outcome" in new HawserError("busy", "The queue is full.")).toBe(false);
    expect("cause" in new HawserError("busy", "The queue is full.")).toBe(false);
  });

  it("knows its own by brand, each leaf its own and the base all of them", () => {
    const error: unknown = new HawserError("busy", "The queue is full.");
    expect(error instanceof HawserError).toBe(true);
    expect(error instanceof HawserError).toBe(true);
    expect(error instanceof HawserError).toBe(false);
    for (const other of [new Error("busy"), { code: "busy" }, "busy", null, undefined]) {
      expect(other instanceof HawserError).toBe(false);
    }
  });

  it("knows those of another copy of the package, which share no class with it", () => {
    const foreign = Object.assign(new Error("The queue is full."), {
      code: "busy",
      [Symbol.for("hawser.error")]: "HawserError",
    });
    expect(foreign).not.toBeInstanceOf(HawserError);
    expect(foreign instanceof HawserError).toBe(true);
    expect(foreign instanceof HawserError).toBe(true);
    expect(foreign instanceof HawserError).toBe(false);
  });
});

describe("errorOfWireCode", () => {
  it("finds every error of the table by its number", () => {
    for (const entry of Object.values(errorTable)) expect(errorOfWireCode(entry.wireCode)).toBe(entry);
  });

  it("says nothing about a number it does not know", () => {
    expect(errorOfWireCode(0)).toBeUndefined();
    expect(errorOfWireCode(65_535)).toBeUndefined();
  });
});

describe("exitStatusOf", () => {
  it("is that of the code, and for anything else that of a defect of ours", () => {
    expect(exitStatusOf(new HawserError("invalid_argument", "--jsn is no flag."))).toBe(64);
    expect(exitStatusOf(new TypeError("x is undefined"))).toBe(errorTable.internal.exitStatus);
  });
});
