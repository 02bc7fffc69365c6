/**
 * Each operation is tested in this folder, and not only through the SQL function that it answers.
 */
import { readdirSync, readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { KeyValue } from "../../../src/nats/operations/key-value.js";
import { NatsOperations } from "../../../src/nats/operations/nats-operations.js";
import { ObjectStores } from "../../../src/nats/operations/object-store.js";

const texts = readdirSync(import.meta.dirname)
  .filter((name) => name.endsWith(".test.ts"))
  .map((name) => readFileSync(`${import.meta.dirname}/${name}`, "utf8"))
  .join("\n");

it.each([
  ["operations", NatsOperations],
  ["keyValue", KeyValue],
  ["objectStores", ObjectStores],
])("%s has no method that is not called here", (name, { prototype }) => {
  const methods = Object.getOwnPropertyNames(prototype).filter((method) => method !== "constructor");
  expect(methods.length).toBeGreaterThan(3);
  expect(methods.filter((method) => !new RegExp(`\\b${name}\\.${method}\\(`).test(texts))).toEqual([]);
});
