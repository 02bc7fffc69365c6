/** Departures from the rules of reading, each of which the random histories of relays for NATS must catch. */
import { expect, it } from "vitest";
import { testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { NatsReading } from "./support/nats-reading.js";

const seeds = 200;

it.each([
  ["joins a series from where main is", "outbox_poll", 'coalesce(s."from", p_from)', "p_from"],
  ["polls a series that does not join", "outbox_poll", "coalesce(s.joins, true)", "true"],
  ["reads pages of all roles", "outbox_turn_nats", "(n.role = p_read_role OR", "(true OR"],
  ["reads pages of all routes", "outbox_turn_nats", "(p_read_route IS NULL OR", "(true OR"],
  ["reads routes that have a series of their own", "outbox_turn_nats", "<> ALL (v_excluded_routes)", "IS NOT NULL"],
  ["truncates what lags behind", "outbox_rotate", "AND o.id = ANY (v_moved)", "AND false"],
  ["keeps what it has moved", "outbox_rotate", "EXECUTE 'TRUNCATE TABLE ONLY ' || v_table;", ""],
])("catches one that %s", { timeout: 240_000 }, async (name, fn, from, to) => {
  await using database = await testDatabase();
  const [row] = await rowsOf(
    database.url,
    `SELECT pg_get_functiondef(oid) AS text FROM pg_proc WHERE pronamespace = 'hawser'::regnamespace AND proname = '${fn}'`,
  );
  const text = String(row!["text"]);
  expect(text).toContain(from);
  await onServer(
    database.url,
    text.replaceAll(from, () => to),
  );
  await using histories = new NatsReading(database.url);
  await histories.open();
  let caught: string | undefined;
  for (let seed = 1; caught === undefined && seed <= seeds; seed++) {
    caught = await histories.run(seed).then(
      () => undefined,
      (error: Error) => `seed ${seed}: ${error.message}`,
    );
  }
  console.log(`${name}: ${caught}`);
  expect(caught).toMatch(/committed|rolled back|twice|takes|again and again|has a rest/);
});
