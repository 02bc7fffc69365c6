import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import { type World, world } from "../store/support/world.js";
import { eventually } from "../support/eventually.js";

const sender = { name: "sender", sourceTopic: "source" };

describe("the stores of a process", () => {
  let w: World;
  beforeAll(async () => {
    w = await world();
  });
  afterAll(() => w[Symbol.asyncDispose]());

  async function connections(application: string): Promise<number> {
    const { rowCount } = await w.operator.query(
      "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1",
      [application],
    );
    return rowCount ?? 0;
  }

  it("share one session and one pool for each database", async () => {
    const databaseUrl = `${w.url}?application_name=shared`;
    const stores = await Promise.all(Array.from({ length: 5 }, () => openStore({ databaseUrl })));
    expect(await connections("shared")).toBe(1);
    await Promise.all(stores.flatMap((store) => Array.from({ length: 10 }, () => store.pending(sender))));
    expect(await connections("shared")).toBe(5);
    for (const store of stores.slice(1)) await store.close();
    expect((await stores[0]!.pending(sender)).count).toBe(0);
    await stores[0]!.close();
    await stores[0]!.close();
    await eventually("the connections are gone", async () => (await connections("shared")) === 0);
    const again = await openStore({ databaseUrl });
    expect(again.isUp).toBe(true);
    await again.close();
  });

  it("have as many connections as the largest request", async () => {
    const databaseUrl = `${w.url}?application_name=sized`;
    const small = await openStore({ databaseUrl, poolSize: 1 });
    await Promise.all(Array.from({ length: 10 }, () => small.pending(sender)));
    expect(await connections("sized")).toBe(2);
    const large = await openStore({ databaseUrl, poolSize: 3 });
    await Promise.all(Array.from({ length: 10 }, () => small.pending(sender)));
    expect(await connections("sized")).toBe(4);
    await Promise.all([small.close(), large.close()]);
  });

  it("receive their own announcements, and none after their close", async () => {
    const one = await openStore({ databaseUrl: w.url });
    const two = await openStore({ databaseUrl: w.url });
    const heard: string[] = [];
    one.on("announced", (key, name) => heard.push(`one ${key} ${name}`));
    two.on("announced", (key, name) => heard.push(`two ${key} ${name}`));
    await one.listenForMessages("a");
    await two.listenForMessages("b");
    await w.store.announce("a", 1);
    await w.store.announce("b", 2);
    await eventually("both have heard", () => heard.length === 2);
    await one.close();
    await w.store.announce("a", 3);
    await w.store.announce("b", 4);
    await eventually("the other has heard", () => heard.length === 3);
    expect(heard).toEqual(["one 1 a", "two 2 b", "two 4 b"]);
    await two.close();
  });

  it("use only plain statements of the pool if a session URL shows that there is a pooler", async () => {
    await using direct = await openStore({ databaseUrl: w.url });
    await using pooled = await openStore({ databaseUrl: `${w.url}?application_name=pooled`, sessionUrl: w.url });
    for (const store of [direct, pooled]) {
      const name = store === direct ? "direct" : "pooled";
      const lease = await store.takeName(name, { waitMs: 0 });
      const channelId = await store.openChannel(sender, name);
      const message = { channelId, epoch: 1, number: 1 };
      await store.commitCursors(lease, [message]);
      await store.drain(channelId, message);
      const outcome = await store.handleInTransaction([], async (client) => {
        const { rowCount } = await client.query("SELECT FROM pg_prepared_statements");
        const { rows } = await client.query(
          "SELECT reset_val FROM pg_settings WHERE name = 'default_transaction_isolation'",
        );
        expect(rows).toEqual([{ reset_val: "read committed" }]);
        expect(rowCount! > 0).toBe(store === direct);
      });
      expect(outcome).toBe("committed");
    }
    // A second one where the first was still being cleaned.
    expect([1, 2]).toContain(await connections("pooled"));
  });

  it("release the pinned commit session to other callers, and replace it when it is lost", async () => {
    await using store = await openStore({ databaseUrl: `${w.url}?application_name=kept`, poolSize: 1 });
    const lease = await store.takeName("kept", { waitMs: 0 });
    const channelId = await store.openChannel({ name: "sender", sourceTopic: "source" }, "kept");
    const committed = { committed: [channelId], notOwned: [], rows: new Map() };
    const commit = (number: number) => store.commitCursors(lease, [{ channelId, epoch: 1, number }]);
    expect(await commit(1)).toEqual(committed);
    expect((await store.pending(sender)).count).toBe(0);
    const work = Array.from({ length: 5 }, (_, index) => [commit(2 + index), store.pending(sender)]);
    await Promise.all(work.flat());
    expect(await connections("kept")).toBe(2);
    expect(await commit(7)).toEqual(committed);
    const { rowCount } = await w.operator.query(
      `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
        WHERE application_name = 'kept' AND query LIKE '%commit_cursors%'`,
    );
    expect(rowCount).toBe(1);
    await eventually("another session commits", async () => (await commit(8).catch(() => "failed")) !== "failed");
    expect((await store.channel(channelId))!.cursor).toEqual({ epoch: 1, number: 8 });
  });

  it("use the PG* variables without a URL", async () => {
    const { hostname, port, username, pathname, password } = new URL(w.url);
    const variables = { PGHOST: hostname, PGPORT: port, PGUSER: username, PGPASSWORD: password };
    const before = { ...process.env };
    Object.assign(process.env, variables, { PGDATABASE: pathname.slice(1) });
    try {
      await using store = await openStore();
      expect((await store.pending(sender)).count).toBe(0);
      expect(await connections("hawser")).toBeGreaterThan(0);
    } finally {
      for (const name of [...Object.keys(variables), "PGDATABASE"]) {
        if (before[name] === undefined) delete process.env[name];
        else process.env[name] = before[name];
      }
    }
  });

  it("report mistakes without the password", async () => {
    const url = new URL(w.url);
    url.password = "s3cret";
    const wrong = [
      ["unreachable", Object.assign(new URL(url), { port: "1" }).href, "store_failed"],
      ["no such database", Object.assign(new URL(url), { pathname: "/none" }).href, "store_failed"],
      ["no such user", Object.assign(new URL(url), { username: "nobody_here" }).href, "store_failed"],
      ["no URI", "s3cret at localhost", "invalid_argument"],
      ["keywords", "host=localhost port=1 password=s3cret", "store_failed"],
      ["unreadable keywords", "host=localhost password='s3cret", "invalid_argument"],
      ["another scheme", "mysql://u:s3cret@localhost/db", "invalid_argument"],
      ["unreadable", "postgres://u:s3cret@local host:abc/db", "invalid_argument"],
      ["unreadable escapes", "postgres://u:s3cret%zz@localhost:99999/db", "invalid_argument"],
    ] as const;
    for (const [what, databaseUrl, code] of wrong) {
      const error = await openStore({ databaseUrl }).then(
        () => expect.unreachable(what),
        (thrown) => thrown,
      );
      expect(error, what).toMatchObject({ name: "HawserError", code });
      expect(`${error.message} ${error.stack} ${JSON.stringify(error)}`, what).not.toContain("s3cret");
    }
  });
});
