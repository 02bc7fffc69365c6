import { describe, expect, it } from "vitest";
import { HawserError } from "../../src/foundation/errors/index.js";
import { postgresErrorOf, rowsOf } from "../../src/foundation/sql-clients/index.js";

describe("the rows of a result", () => {
  it("are the result, or in it", () => {
    const rows = [{ id: "1" }];
    expect(rowsOf(rows)).toBe(rows);
    expect(rowsOf({ rows, rowCount: 1 })).toBe(rows);
    expect(rowsOf([])).toEqual([]);
  });

  it.each([[undefined], [null], [1], [{}], [{ rows: 1 }], [[["1"]]], [{ rows: [null] }], [[1]]])(
    "are missing in %j",
    (result) => {
      const rows = () => rowsOf(result);
      expect(rows).toThrow(HawserError);
      expect(rows).toThrow("resolved without rows");
    },
  );
});

describe("the error of Postgres", () => {
  const error = { code: "22012", message: "division by zero" };

  it.each([
    ["itself", error],
    ["the cause of Drizzle's", { message: "Failed query", cause: error }],
    ["within Prisma's", { code: "P2010", meta: { driverAdapterError: { cause: error } } }],
    [
      "within Prisma's, in words of Prisma",
      {
        code: "P2034",
        meta: { driverAdapterError: { cause: { originalCode: "22012", originalMessage: "division by zero" } } },
      },
    ],
  ])("is %s", (_where, given) => {
    expect(postgresErrorOf(given)).toMatchObject(error);
  });

  it("is what was given where there is none", () => {
    const given = new Error("no", { cause: new Error("why") });
    expect(postgresErrorOf(given)).toBe(given);
    expect(postgresErrorOf(undefined)).toEqual({});
  });
});
