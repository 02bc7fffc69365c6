/**
 * Rows that the tables refuse to every role, because no dead letter could be made of them: a peer would have to pass them
 * over again and again.
 */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { tableNamed } from "../support/tables.js";
import { type World, world } from "./support/world.js";

let w: World;

beforeAll(async () => {
  w = await world();
});
afterAll(() => w[Symbol.asyncDispose]());

describe("the tables", () => {
  const large = 2n ** 53n;

  it.each([
    ["stored_messages", "epoch", `(channel_id, epoch, payload) VALUES (1, ${large}, 'x')`],
    ["stored_messages", "number", `(channel_id, number, payload) VALUES (1, ${large}, 'x')`],
    ["stored_messages", "stored_at", "(channel_id, stored_at, payload) VALUES (1, 'infinity', 'x')"],
    ["cursors", "epoch", `(channel_id, epoch) VALUES (1, ${large})`],
    ["cursors", "number", `(channel_id, number) VALUES (1, ${large})`],
    ["topics", "topic", "(topic, id) VALUES ('a:b', 1000000)"],
    ["topics", "topic", "(topic, id) VALUES (E'a\\x01', 1000000)"],
    ["routes", "listener_name", "(sender_key, addr, listener_topic, listener_name) VALUES ('a:a', 'a:1', 'a', 'b:c')"],
    [
      "routes",
      "listener_topic",
      "(sender_key, addr, listener_topic, listener_name) VALUES ('a:a', 'a:1', E'\\n', 'b')",
    ],
    ["listeners", "epoch", `(topic, addr, listener_name, epoch) VALUES ('a', 'a:1', 'b', ${large})`],
    ["listeners", "registered_at", "(topic, addr, listener_name, registered_at) VALUES ('a', 'a:1', 'b', '-infinity')"],
  ])("refuse a row of %s whose %s no dead letter could have", async (table, column, row) => {
    await expect(w.operator.query(`INSERT INTO ${tableNamed(table)} ${row}`)).rejects.toMatchObject({
      code: "23514",
      constraint: expect.stringContaining(column),
    });
  });
});
