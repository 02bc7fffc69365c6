import pg from "pg";
import { describe, expect, it } from "vitest";
import { NestedTransactions } from "../../../src/jobs-and-peers/handlers/transactions/nested-transactions.js";

/** Sends texts to nowhere. @returns what was sent, and the errors of what was not */
async function sent(...texts: readonly unknown[]): Promise<string[]> {
  const log: string[] = [];
  const nested = new NestedTransactions(async (given) => {
    log.push(typeof given === "string" ? given : (given as { text: string }).text);
  });
  for (const text of texts)
    await Promise.resolve(nested.query([text])).catch((error) =>
      log.push(`${error.code} ${error.message.split(":")[0]}`),
    );
  return log;
}

describe("a transaction within that of a handler", () => {
  it("is a savepoint, in the words of each library", async () => {
    expect(await sent("begin", "INSERT", "commit")).toEqual([
      "SAVEPOINT hawser_nested_1",
      "INSERT",
      "RELEASE SAVEPOINT hawser_nested_1",
    ]);
    const pairs = [
      ["BEGIN;", "COMMIT;"],
      ["START TRANSACTION", "COMMIT WORK"],
      [" begin transaction isolation level read committed, read write ", "END TRANSACTION"],
      ["/* a /* b */ c */ BEGIN -- d", "COMMIT AND NO CHAIN"],
      [{ text: "BEGIN", name: "begin", values: [] }, { text: "COMMIT" }],
      [new pg.Query("BEGIN WORK"), new pg.Query("END")],
    ];
    for (const pair of pairs)
      expect(await sent(...pair)).toEqual(["SAVEPOINT hawser_nested_1", "RELEASE SAVEPOINT hawser_nested_1"]);
  });

  it("is rolled back to its savepoint, at any depth", async () => {
    const texts = await sent("BEGIN", "BEGIN", "ROLLBACK", "BEGIN", "ABORT", "COMMIT", "BEGIN", "ROLLBACK WORK");
    expect(texts).toEqual([
      ...["SAVEPOINT hawser_nested_1", "SAVEPOINT hawser_nested_2", "ROLLBACK TO SAVEPOINT hawser_nested_2"],
      ...["SAVEPOINT hawser_nested_2", "ROLLBACK TO SAVEPOINT hawser_nested_2", "RELEASE SAVEPOINT hawser_nested_1"],
      ...["SAVEPOINT hawser_nested_1", "ROLLBACK TO SAVEPOINT hawser_nested_1"],
    ]);
  });

  it("is one with others behind AND CHAIN", async () => {
    expect(await sent("BEGIN", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "ROLLBACK")).toEqual([
      ...["SAVEPOINT hawser_nested_1", "SAVEPOINT hawser_nested_1"],
      ...["ROLLBACK TO SAVEPOINT hawser_nested_1", "ROLLBACK TO SAVEPOINT hawser_nested_1"],
    ]);
  });

  it("is found among several statements", async () => {
    expect(await sent("BEGIN; INSERT INTO a VALUES ('; COMMIT;', $$;$$, E'\\';', \"b;\"); -- ; x\nCOMMIT;")).toEqual([
      "SAVEPOINT hawser_nested_1; INSERT INTO a VALUES ('; COMMIT;', $$;$$, E'\\';', \"b;\"); RELEASE SAVEPOINT hawser_nested_1",
    ]);
  });

  it.each([
    "SELECT CASE WHEN true THEN 1 END; SELECT 'commit'",
    "DO $body$ BEGIN COMMIT; END; $body$",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC; SELECT CASE 1 WHEN 1 THEN 1 END; END; SELECT 1",
    "CREATE RULE r AS ON INSERT TO a DO ALSO (DELETE FROM b; COMMIT)",
    "PREPARE a AS SELECT 1; ROLLBACK TO SAVEPOINT mine; RELEASE mine; SAVEPOINT begin",
    "COMMIT PREPARED 'a'",
    "SELECT 1 AS commit -- ; COMMIT",
    "UPDATE a SET b$ = 1, \"c\" = U&'; COMMIT' WHERE d = $1; COMMENT ON TABLE a IS 'x;'",
  ])("is not seen in %s", async (text) => {
    expect(await sent(text)).toEqual([text]);
  });

  it.each(["COMMIT", "rollback;", "END", "INSERT INTO a VALUES (1); COMMIT; BEGIN", "PREPARE TRANSACTION 'a'"])(
    "is what %s needs: nothing is sent without one",
    async (text) => {
      const statement = text.includes("INSERT") ? "COMMIT" : text.replace(";", "");
      expect(await sent(text)).toEqual([`handler_failed ${statement}`]);
      expect(await sent("BEGIN; COMMIT", text)).toEqual([
        "SAVEPOINT hawser_nested_1; RELEASE SAVEPOINT hawser_nested_1",
        `handler_failed ${statement}`,
      ]);
    },
  );

  it.each([
    "BEGIN ISOLATION LEVEL SERIALIZABLE",
    "START TRANSACTION READ WRITE, ISOLATION LEVEL REPEATABLE READ",
    "begin read only",
  ])("has no other modes: %s", async (text) => {
    expect(await sent(text, "COMMIT")).toEqual([`invalid_argument ${text}`, "handler_failed COMMIT"]);
  });

  it("can be rolled back after its COMMIT has failed", async () => {
    const log: unknown[] = [];
    const nested = new NestedTransactions(async (text) => {
      log.push(text);
      if (String(text).startsWith("RELEASE")) throw new Error("current transaction is aborted");
    });
    await nested.query(["BEGIN"]);
    await expect(nested.query(["COMMIT"])).rejects.toThrow("aborted");
    await nested.query(["ROLLBACK"]);
    expect(log.at(-1)).toBe("ROLLBACK TO SAVEPOINT hawser_nested_1");
  });

  it("is refused in the way of the call: to a callback, to a query that sends itself", async () => {
    const nested = new NestedTransactions(() => undefined);
    const error = await new Promise((resolve) => nested.query(["COMMIT", resolve]));
    expect(error).toMatchObject({ code: "handler_failed" });
    const query = new pg.Query("COMMIT");
    query.on("error", () => undefined);
    const failed = new Promise((resolve) => query.once("error", resolve));
    expect(nested.query([query])).toBe(query);
    expect(await failed).toMatchObject({ code: "handler_failed" });
  });
});
