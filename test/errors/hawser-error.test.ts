import { inspect } from "node:util";
import { describe, expect, it, vi } from "vitest";
import { errorOfWireCode, errorTable, exitStatusOf, HawserError, Reject } from "../../src/foundation/errors/index.js";

describe("HawserError", () => {
  it("carries code, message, cause and what the spec says of the code", () => {
    const cause = new Error("ECONNREFUSED");
    const error = new HawserError("store_failed", "Postgres at 127.0.0.1:1 cannot be reached.", { cause });
    const { exitStatus, remedy } = errorTable.store_failed;
    expect(error).toMatchObject({ code: "store_failed", retryable: true, exitStatus, remedy, cause });
    expect(error.name).toBe("HawserError");
    expect(String(error)).toBe("HawserError: Postgres at 127.0.0.1:1 cannot be reached.");
    expect(error.stack).toMatch(/^HawserError: Postgres at 127\.0\.0\.1:1 cannot be reached\.\n {4}at /);
  });

  it("has an outcome, a detail and a cause only where one was given", () => {
    const unknown = new HawserError("store_failed", "It may still arrive.", { outcome: "unknown", detail: "why" });
    expect(unknown).toMatchObject({ outcome: "unknown", detail: "why" });
    const error = new HawserError("busy", "The queue is full.");
    for (const name of ["outcome", "detail", "cause"]) expect(name in error, name).toBe(false);
  });

  it("has and prints the remedy of the case, or else that of the code", () => {
    const special = new HawserError("busy", "The queue is full.", { remedy: "Wait a second." });
    expect(special.remedy).toBe("Wait a second.");
    expect(inspect(special)).toContain("remedy: 'Wait a second.'");
    const usual = new HawserError("busy", "The queue is full.", { remedy: undefined });
    expect(usual.remedy).toBe(errorTable.busy.remedy);
    expect(inspect(usual)).toContain(`remedy: '${errorTable.busy.remedy}'`);
  });

  it("is not retryable where the same cannot succeed, whatever is said of the code", () => {
    const login = new HawserError("store_failed", "the password is wrong", { retryable: false });
    expect(login.retryable).toBe(false);
    expect(new HawserError("store_failed", "it is starting", { retryable: undefined }).retryable).toBe(true);
  });

  it("has the name AbortError, as Node's own errors, if a signal ended the wait", () => {
    const error = new HawserError("aborted", "the wait was aborted");
    expect(error.name).toBe("AbortError");
    expect(inspect(error)).toMatch(/^HawserError \[AbortError\]: the wait was aborted\n/);
    expect(Object.keys(error)).toEqual(["code", "retryable", "remedy"]);
  });

  it("is no other value", () => {
    expect(new HawserError("busy", "The queue is full.")).not.toBeInstanceOf(Reject);
    for (const other of [new Error("busy"), { code: "busy" }, "busy", null, undefined]) {
      expect(other instanceof HawserError, String(other)).toBe(false);
    }
  });

  it("is told from a class that others derive", () => {
    class Special extends HawserError {}
    const special = new Special("busy", "The queue is full.");
    expect([special instanceof Special, special instanceof HawserError]).toEqual([true, true]);
    expect(new HawserError("busy", "The queue is full.") instanceof Special).toBe(false);
  });

  it("is recognized by another copy of the package", async () => {
    vi.resetModules();
    const other = await import("../../src/foundation/errors/index.js");
    expect(other.HawserError).not.toBe(HawserError);
    const foreign: unknown = new other.HawserError("busy", "The queue is full.");
    expect([foreign instanceof HawserError, foreign instanceof Reject]).toEqual([true, false]);
    const rejected: unknown = new other.Reject("no such order");
    expect([rejected instanceof HawserError, rejected instanceof Reject]).toEqual([true, true]);
    expect(exitStatusOf(foreign)).toBe(errorTable.busy.exitStatus);
  });
});

describe("Reject", () => {
  it("is a HawserError with the code rejected, and a name of its own", () => {
    const error = new Reject("order 7 was deleted", { remedy: "Make it again." });
    expect(error).toBeInstanceOf(HawserError);
    expect(error).toMatchObject({ code: "rejected", name: "Reject", remedy: "Make it again.", retryable: false });
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
