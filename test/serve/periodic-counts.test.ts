/** Which process of `hawser serve` counts what waits for peers. */
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { DatabaseAddress, PostgresSession } from "../../src/foundation/postgres/index.js";
import { silentLogger } from "../../src/foundation/runtime/index.js";
import { StoredCounts } from "../../src/nats/serve/periodic-counts.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer } from "../support/on-server.js";

let database: TestDatabase;
beforeAll(async () => {
  database = await testDatabase();
  await onServer(database.url, "SELECT hawser.enqueue('orders', 'x')");
});
afterAll(() => database?.drop());

it("the leader counts; another process does while nobody leads, or a leader shows no heartbeat", async () => {
  const session = new PostgresSession({
    address: DatabaseAddress.of(database.url),
    logger: silentLogger,
    applicationName: "test: counts",
    queryTimeoutMs: 10_000,
    onDown: () => undefined,
  });
  await session.open();
  let isLeading = false;
  const counts = new StoredCounts(session, () => isLeading, silentLogger);
  try {
    const counted = async () => {
      await counts.run();
      return counts.counters?.backlog.map(({ topic, messages, state }) => ({ topic, messages, state }));
    };
    const lead = (owner: string | null, beat: number) =>
      onServer(
        database.url,
        `UPDATE hawser_data.owners SET owner = ${owner === null ? "NULL" : `'${owner}'`}, beat = ${beat} WHERE what = 'serve'`,
      );
    const all = [{ topic: "orders", messages: 1, state: "unserved" }];
    await lead(null, 0);
    expect(await counted()).toEqual(all);
    await lead("other", 1);
    expect(await counted()).toEqual([]);
    await lead("other", 2);
    expect(await counted()).toEqual([]);
    expect(counts.counters?.waiting).toMatchObject({ messages: 0 });
    // The other one is gone, and has not said so.
    expect(await counted()).toEqual(all);
    await lead("other", 3);
    expect(await counted()).toEqual([]);
    // Whoever holds up the view of the leader silences nothing.
    const locker = new pg.Client({ connectionString: database.url });
    await locker.connect();
    await locker.query("BEGIN; ALTER VIEW hawser.bridge_lead SET (security_barrier)");
    expect(await counted()).toEqual(all);
    expect(counts.counters?.deadLetters).toHaveLength(3);
    await locker.end();
    await lead("own", 4);
    isLeading = true;
    expect(await counted()).toEqual(all);
  } finally {
    counts.stop();
    await session.close();
  }
});
