/**
 * Dead letters of subscribed functions: `hawser dead`, up to where `hawser serve` takes over.
 */
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { type BindingWorld, bindingWorld } from "../bridge/support/binding-world.js";
import { hawser } from "../cli/support/hawser.js";
import { login } from "../installation/support/logins.js";

let world: BindingWorld;
let handler: string;

beforeAll(async () => {
  world = await bindingWorld();
  await world.client.query("CREATE FUNCTION f(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT'");
});
afterAll(async () => world?.[Symbol.asyncDispose]());
beforeEach(async () => {
  await world.client.query(
    "DELETE FROM hawser_data.dead_letters; DELETE FROM hawser_data.queue; SELECT nats_subscribe('orders.*', 'f')",
  );
  handler = (await world.bound("orders.*"))[0]!.id;
});

/** Makes a dead letter of the bridge. */
async function dead(handlerId: string | null): Promise<number> {
  const [row] = await world.rows<{ id: string }>(
    `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, handler_id)
       VALUES ('subscription', 'public.f(bytea)', 'orders.new', 'x', 'P0001', 'not today', 1, $1) RETURNING id`,
    [handlerId],
  );
  return Number(row!.id);
}

/** Ids of the dead letters that wait in the queue, to be handled again. */
const queued = async () =>
  (
    await world.rows<{ id: string }>(
      `SELECT substring(q.headers -> 0 ->> 1 FROM 'dead-letter-([0-9]+)') AS id
         FROM hawser_data.queue AS q WHERE q.topic LIKE '\\_\\_#function#%' ORDER BY q.id`,
    )
  ).map(({ id }) => Number(id));

const run = (...args: string[]) => hawser(["dead", ...args], { databaseUrl: world.database.url });

it("are listed with function and subject", async () => {
  const id = await dead(handler);
  const { stdout } = await run("list", "--origin", "subscription");
  expect(stdout).toMatch(new RegExp(`^ *${id} .* orders\\.new +public\\.f\\(bytea\\) .*P0001: not today$`, "m"));
  expect(JSON.parse((await run("list", "--source", "public.f(bytea)", "--json")).stdout)).toMatchObject({
    ...{ id, origin: "subscription", source: "public.f(bytea)", topic: "orders.new" },
    ...{ listener: null, sentAs: null },
  });
});

it("are in the queue when they are retried, as messages of the owner of the function", async () => {
  const [one, two] = [await dead(handler), await dead(handler)];
  const { status, stdout } = await run("retry", `${one}`);
  expect(status).toBe(0);
  expect(stdout).toBe("Enqueued 1 dead letter again.\n");
  expect(await queued()).toEqual([one]);
  expect(await world.rows("SELECT topic, recipient, role = current_user AS own, key FROM hawser_data.queue")).toEqual([
    { topic: `__#function#${handler}`, recipient: "", own: true, key: "retried" },
  ]);
  // Nobody listens to such a topic, and nobody misses a listener.
  expect(await world.rows("SELECT FROM hawser.queue_backlog(100, '{}')")).toEqual([]);
  const lines = (await run("retry", "--all", "--json")).stdout.trim().split("\n");
  expect(lines.map((line) => JSON.parse(line))).toEqual([{ id: two, outcome: "enqueued" }]);
  expect(await world.rows("SELECT FROM hawser_data.dead_letters")).toEqual([]);
});

it("cannot be retried where the function is not subscribed any more, and stay", async () => {
  const gone = await dead(handler);
  const never = await dead(null);
  await world.client.query("SELECT nats_unsubscribe('orders.*', 'f')");
  await world.client.query("SELECT nats_subscribe('orders.*', 'f')");
  const left = await dead((await world.bound("orders.*"))[0]!.id);
  const { status, stderr } = await run("retry", "--all");
  expect(status).toBe(64);
  expect(stderr).toContain(`dead letter ${gone} belongs to a function that is no longer subscribed`);
  expect(stderr).toContain("1 more were refused");
  expect(await queued()).toEqual([left]);
  expect(never).toBeGreaterThan(gone);
});

it("are discarded like others", async () => {
  const id = await dead(handler);
  expect((await run("discard", `${id}`)).stdout).toBe("Discarded 1 dead letter.\n");
  expect(await world.rows("SELECT FROM hawser_data.dead_letters")).toEqual([]);
});

it("can be retried by a peer that is in the role that subscribed, and by no other, and neither reads a token", async () => {
  const subscriber = await world.user();
  const [id] = await world.rows<{ id: string }>(
    "SELECT id FROM hawser_bridge_data.nats_handlers WHERE subject = 'orders.*'",
  );
  const letter = await dead(id!.id);
  await world.client.query("UPDATE hawser_data.dead_letters SET role = $1, role_id = to_regrole($1)::oid::bigint", [
    subscriber.role,
  ]);
  await using stranger = await login(world.database.url, "IN ROLE hawser_peer");
  const refused = await hawser(["dead", "retry", `${letter}`], { databaseUrl: stranger.url });
  expect(refused.status).toBe(77);
  expect(refused.stderr).toContain(`dead letter ${letter} belongs to a role that this login is not a member of`);
  expect((await hawser(["dead", "discard", `${letter}`], { databaseUrl: stranger.url })).status).toBe(77);
  expect(await queued()).toEqual([]);
  await using peer = await login(world.database.url, `IN ROLE hawser_peer, ${subscriber.role}`);
  const { status } = await hawser(["dead", "retry", `${letter}`], { databaseUrl: peer.url });
  expect(status).toBe(0);
  expect(await queued()).toEqual([letter]);
  const session = await world.connect(peer.url);
  await expect(session.query("SELECT token FROM hawser_bridge_data.nats_handlers")).rejects.toMatchObject({
    code: "42501",
  });
  await session.end();
});
