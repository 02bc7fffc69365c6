/**
 * Each operation is tested in this folder, and not only through the SQL function that it answers.
 */
import { readdirSync, readFileSync } from "node:fs";
import { expect, inject, it } from "vitest";
import { operationsOf } from "./operations-of.js";

/** The compiler asks for a call of each in `lost-connection.test.ts`, which says nothing of what it does. */
const texts = readdirSync(import.meta.dirname)
  .filter((name) => name.endsWith(".test.ts") && name !== "lost-connection.test.ts")
  .map((name) => readFileSync(`${import.meta.dirname}/${name}`, "utf8"))
  .join("\n");

it("has no operation that is not called here", async () => {
  await using used = await operationsOf(inject("natsUrl"));
  const { connection: _, ...parts } = used.operations;
  const methods = Object.entries<object>({ operations: used.operations, ...parts }).flatMap(([name, part]) =>
    Object.getOwnPropertyNames(Object.getPrototypeOf(part))
      .filter((method) => method !== "constructor")
      .map((method) => `${name}.${method}`),
  );
  expect(methods).toEqual(expect.arrayContaining(["operations.flush", "keyValue.put", "objectStores.get"]));
  expect(methods.filter((method) => !new RegExp(`\\b${method.replace(".", "[.]")}\\(`).test(texts))).toEqual([]);
});
